//! Prints the page of the documentation about annotations.

fn main() {
    print!("{}", outrigger_injector::annotations::reference());
}
