//! Prints the page of the documentation about pods without a sidecar.

fn main() {
    print!("{}", outrigger_operator::missing::reason::reference());
}
