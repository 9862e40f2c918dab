//! The cascade against a slow, obvious model on random graphs, cycles and all.

use evenkeel_audit::cascade::Cascade;
use evenkeel_audit::graph::{Gate, Graph, GraphBuilder, NodeId};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Model {
    gates: Vec<Gate>,
    /// (input, gate) as positions.
    edges: Vec<(usize, usize)>,
}

impl Model {
    /// Applies every gate again and again until nothing changes.
    fn failed(&self, lost: &[usize]) -> Vec<bool> {
        let mut failed = vec![false; self.gates.len()];
        for node in lost {
            failed[*node] = true;
        }
        loop {
            let before = failed.clone();
            for (node, gate) in self.gates.iter().enumerate() {
                let inputs = self.edges.iter().filter(|(_, to)| *to == node);
                let all = inputs.clone().count();
                let down = inputs.filter(|(from, _)| failed[*from]).count();
                failed[node] |= match gate {
                    Gate::Any => down >= 1,
                    Gate::All => down == all,
                    Gate::AtLeast(count) => down >= *count as usize,
                };
            }
            if failed == before {
                return failed;
            }
        }
    }

    fn graph(&self) -> (Graph, Vec<NodeId>) {
        let mut builder = GraphBuilder::new();
        let nodes: Vec<NodeId> = self.gates.iter().map(|gate| builder.add(*gate)).collect();
        for (from, to) in &self.edges {
            builder.connect(nodes[*from], nodes[*to]);
        }
        (builder.build(), nodes)
    }
}

fn models() -> impl Strategy<Value = (Model, Vec<usize>, usize)> {
    (1_usize..24).prop_flat_map(|nodes| {
        let gate = prop_oneof![
            4 => Just(Gate::Any),
            3 => Just(Gate::All),
            3 => (0_u32..5).prop_map(Gate::AtLeast),
        ];
        let model = (
            prop::collection::vec(gate, nodes),
            prop::collection::vec((0..nodes, 0..nodes), 0..nodes * 3),
        )
            .prop_map(|(gates, edges)| Model { gates, edges });
        (model, prop::collection::vec(0..nodes, 0..3), 0..nodes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn agrees_with_the_obvious_model((model, lost, top) in models()) {
        let (graph, nodes) = model.graph();
        let lost_nodes: Vec<NodeId> = lost.iter().map(|node| nodes[*node]).collect();
        let mut cascade = Cascade::new(&graph, &lost_nodes);
        let base = model.failed(&lost);
        for (index, node) in nodes.iter().enumerate() {
            prop_assert_eq!(cascade.has_failed(*node), base[index]);
        }
        let mut singles = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let mut more = lost.clone();
            more.push(index);
            let failed = model.failed(&more);
            prop_assert_eq!(&cascade.failed_with(&[*node]), &failed);
            prop_assert_eq!(cascade.fails_with(&[*node], nodes[top]), failed[top]);
            if failed[top] && !base[top] {
                singles.push(*node);
            }
        }
        prop_assert_eq!(cascade.single_failures(nodes[top]), singles);
    }
}

#[test]
fn a_deep_chain_needs_no_stack() {
    let mut builder = GraphBuilder::new();
    let mut node = builder.add(Gate::Any);
    for _ in 0..200_000 {
        node = builder.add_with(Gate::Any, &[node]);
    }
    let graph = builder.build();
    assert_eq!(Cascade::new(&graph, &[]).single_failures(node).len(), 200_001);
}

#[test]
fn services_that_need_each_other_fall_together() {
    let mut builder = GraphBuilder::new();
    let (left, right) = (builder.add(Gate::Any), builder.add(Gate::Any));
    builder.connect(left, right);
    builder.connect(right, left);
    let top = builder.add_with(Gate::All, &[left, right]);
    let graph = builder.build();
    assert_eq!(Cascade::new(&graph, &[]).single_failures(top), [left, right, top]);
}
