//! Keeps the library mapped for the life of the VM. A purge of the Elixir module unloads it while a
//! worker's call may still be executing its code; a mapping that stays makes that harmless.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let unix_elf =
        std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os != "macos" && os != "windows");
    if unix_elf {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
