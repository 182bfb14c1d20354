// SPDX-License-Identifier: GPL-2.0

fn main() {
    println!("{}", env!("CARGO_PKG_VERSION"));
}
