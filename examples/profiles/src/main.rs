//! The example service as a program of its own; what it does stands in `lib.rs`.

fn main() -> anyhow::Result<()> {
    profiles::run()
}
