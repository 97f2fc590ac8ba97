// Puts parity requests to the wasm module under Node: node run.mjs MODULE JOBS ANSWERS
//
// JOBS holds one JSON object a line: {"blobs": [paths], "request": "the request's JSON as text"}. ANSWERS gets one
// line of JSON for each: the module's answer as it came, or {"trap": message}. Requests and answers stay text here,
// because JavaScript's numbers would round 64-bit integers. Every job gets an instance, and so a memory, of its own.

import { open, readFile } from 'node:fs/promises';
import process from 'node:process';

const [modulePath, jobsPath, answersPath] = process.argv.slice(2);
const module = await WebAssembly.compile(await readFile(modulePath));
const imports = WebAssembly.Module.imports(module);
if (imports.length > 0) {
  console.error(`the module must not import anything, but asks for: ${imports.map((i) => `${i.module}.${i.name}`).join(', ')}`);
  process.exit(2);
}

async function answer(job) {
  const { exports: wasm } = await WebAssembly.instantiate(module, {});
  // The buffer is looked up at each use: it is replaced whenever the memory grows. Addresses are unsigned.
  const put = (address, bytes) => new Uint8Array(wasm.memory.buffer).set(bytes, address >>> 0);
  const get = (address, length) => new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, address >>> 0, length >>> 0));
  try {
    for (const path of job.blobs) {
      const bytes = await readFile(path);
      put(wasm.blob(bytes.length), bytes);
    }
    const request = new TextEncoder().encode(job.request);
    put(wasm.request(request.length), request);
    const address = wasm.run();
    return get(address, wasm.output_len());
  } catch (error) {
    const address = wasm.panic_message();
    const panic = get(address, wasm.output_len());
    return JSON.stringify({ trap: panic || String(error) });
  }
}

const answers = await open(answersPath, 'w');
for (const line of (await readFile(jobsPath, 'utf8')).split('\n')) {
  if (line !== '') {
    await answers.write(`${await answer(JSON.parse(line))}\n`);
  }
}
await answers.close();
