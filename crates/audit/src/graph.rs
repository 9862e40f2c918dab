//! A directed graph of what fails with what: events, and gates that fire when enough of their
//! inputs have failed.
//!
//! Knows nothing of hosts or services. Cycles are allowed ("A needs B needs A"). Built once, then
//! read only; [`crate::cascade`] computes on it.

/// Names a node of one [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// Returns the position of the node, from 0, in the order in which nodes were added.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// When a node fails because of its inputs. Each node can also fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// When one input has failed; never without inputs. The gate of a basic event.
    Any,
    /// When all inputs have failed; at once without inputs.
    All,
    /// When so many inputs have failed; at once if 0. An input that is given twice counts twice.
    AtLeast(u32),
}

/// Collects nodes and inputs of a [`Graph`].
#[derive(Debug, Clone, Default)]
pub struct GraphBuilder {
    gates: Vec<Gate>,
    /// (input, gate), in any order.
    edges: Vec<(NodeId, NodeId)>,
}

/// A finished graph. Adjacency is stored flat: a million edges take 8 MB.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Failed inputs that make a node fail; `u32::MAX` for never.
    needs: Vec<u32>,
    inputs: Adjacency,
    outputs: Adjacency,
}

/// Neighbours of each node in one list.
#[derive(Debug, Clone)]
struct Adjacency {
    /// Where the neighbours of node `i` begin; they end where those of `i + 1` begin.
    starts: Vec<usize>,
    neighbours: Vec<NodeId>,
}

impl GraphBuilder {
    /// Begins with no nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node.
    ///
    /// # Panics
    /// At 2³² − 1 nodes.
    pub fn add(&mut self, gate: Gate) -> NodeId {
        let index = u32::try_from(self.gates.len()).ok().filter(|index| *index < u32::MAX);
        self.gates.push(gate);
        NodeId(index.expect("a graph has fewer than 2^32 - 1 nodes"))
    }

    /// Makes `input` an input of `node`. Both are nodes of this builder.
    pub fn connect(&mut self, input: NodeId, node: NodeId) {
        assert!(input.index() < self.gates.len() && node.index() < self.gates.len());
        self.edges.push((input, node));
    }

    /// Adds a node with its inputs.
    pub fn add_with(&mut self, gate: Gate, inputs: &[NodeId]) -> NodeId {
        let node = self.add(gate);
        for input in inputs {
            self.connect(*input, node);
        }
        node
    }

    /// Finishes the graph.
    #[must_use]
    pub fn build(self) -> Graph {
        let Self { gates, edges } = self;
        let inputs = Adjacency::new(gates.len(), edges.iter().map(|(input, node)| (*node, *input)));
        let outputs = Adjacency::new(gates.len(), edges.iter().copied());
        let needs = gates
            .iter()
            .enumerate()
            .map(|(index, gate)| match gate {
                Gate::Any => 1,
                Gate::All => u32::try_from(inputs.of(index).len()).unwrap_or(u32::MAX),
                Gate::AtLeast(count) => *count,
            })
            .collect();
        Graph { needs, inputs, outputs }
    }
}

impl Graph {
    /// Returns the number of nodes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.needs.len()
    }

    /// Returns whether there is no node.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.needs.is_empty()
    }

    /// Returns all nodes in the order in which they were added.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..u32::try_from(self.needs.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    /// Returns how many failed inputs make the node fail; 0 means that it has failed from the start.
    #[must_use]
    pub fn need(&self, node: NodeId) -> u32 {
        self.needs[node.index()]
    }

    /// Returns the inputs of a node, each as often as it was connected.
    #[must_use]
    pub fn inputs(&self, node: NodeId) -> &[NodeId] {
        self.inputs.of(node.index())
    }

    /// Returns the nodes that a node is an input of.
    #[must_use]
    pub fn outputs(&self, node: NodeId) -> &[NodeId] {
        self.outputs.of(node.index())
    }

    /// Returns the nodes from which `top` can be reached, outputs before inputs wherever no cycle
    /// stands in the way: a depth-first search along inputs, in reverse order of leaving.
    #[must_use]
    pub fn below(&self, top: NodeId) -> Vec<NodeId> {
        let mut seen = vec![false; self.len()];
        let mut left = Vec::new();
        let mut path = vec![(top, 0)];
        seen[top.index()] = true;
        while let Some((node, next)) = path.last_mut() {
            let Some(&input) = self.inputs.of(node.index()).get(*next) else {
                left.push(*node);
                path.pop();
                continue;
            };
            *next += 1;
            if !seen[input.index()] {
                seen[input.index()] = true;
                path.push((input, 0));
            }
        }
        left.reverse();
        left
    }
}

impl Adjacency {
    fn new(nodes: usize, edges: impl Iterator<Item = (NodeId, NodeId)> + Clone) -> Self {
        let mut starts = vec![0; nodes + 1];
        for (from, _) in edges.clone() {
            starts[from.index() + 1] += 1;
        }
        for index in 0..nodes {
            starts[index + 1] += starts[index];
        }
        let mut next = starts.clone();
        let mut neighbours = vec![NodeId(0); starts[nodes]];
        for (from, to) in edges {
            neighbours[next[from.index()]] = to;
            next[from.index()] += 1;
        }
        Self { starts, neighbours }
    }

    fn of(&self, index: usize) -> &[NodeId] {
        &self.neighbours[self.starts[index]..self.starts[index + 1]]
    }
}
