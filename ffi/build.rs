//! Gives the shared library its name in the loader's eyes.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libtoolb.so.0");
}
