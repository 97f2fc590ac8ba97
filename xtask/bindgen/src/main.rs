//! `twinfer-bindgen INPUT.wasm OUTPUT_DIRECTORY NAME`: writes `NAME.js`, `NAME.d.ts` and `NAME_bg.wasm`, an ES module
//! that a page or a worker loads as it is.

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, name] = arguments.as_slice() else {
        bail!("usage: twinfer-bindgen INPUT.wasm OUTPUT_DIRECTORY NAME");
    };
    Bindgen::new()
        .input_path(input)
        .out_name(name)
        .web(true)?
        .typescript(true)
        .generate(output)
        .with_context(|| format!("wasm-bindgen refuses {input}"))
}
