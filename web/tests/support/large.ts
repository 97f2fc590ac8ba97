// A model file of over 3 GB that takes little room on the disk: holes where its layers' weights are zero, numbers at its
// beginning and its end, so that the answer depends on both.

import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';

const EMBD = 4096;
const FF = 14336;
const HEADS = 32;
const KV_HEADS = 8;
const VOCAB = 16000;
const F32 = 0;
const Q8_0 = 8;
const Q4_K = 12;
const ALIGN = 32;

/** Bytes per block, weights per block. */
const BLOCKS: Record<number, [number, number]> = { [F32]: [4, 1], [Q8_0]: [34, 32], [Q4_K]: [144, 256] };

interface Tensor {
  name: string;
  shape: number[];
  type: number;
  fill: 'ones' | 'pattern' | 'hole';
}

/** Writes it; `layers` of 122 MB each. Gives its length. */
export function writeLargeModel(path: string, layers: number): number {
  const tensors: Tensor[] = [{ name: 'token_embd.weight', shape: [EMBD, VOCAB], type: Q8_0, fill: 'pattern' }];
  const head = EMBD / HEADS;
  for (let i = 0; i < layers; i++) {
    const add = (name: string, shape: number[]) => tensors.push({ name: `blk.${i}.${name}.weight`, shape, type: Q4_K, fill: 'hole' });
    const norm = (name: string) => tensors.push({ name: `blk.${i}.${name}.weight`, shape: [EMBD], type: F32, fill: 'ones' });
    norm('attn_norm');
    add('attn_q', [EMBD, EMBD]);
    add('attn_k', [EMBD, KV_HEADS * head]);
    add('attn_v', [EMBD, KV_HEADS * head]);
    add('attn_output', [EMBD, EMBD]);
    norm('ffn_norm');
    add('ffn_gate', [EMBD, FF]);
    add('ffn_up', [EMBD, FF]);
    add('ffn_down', [FF, EMBD]);
  }
  tensors.push({ name: 'output_norm.weight', shape: [EMBD], type: F32, fill: 'ones' });
  tensors.push({ name: 'output.weight', shape: [EMBD, VOCAB], type: Q8_0, fill: 'pattern' });

  const sizes = tensors.map(({ shape, type }) => {
    const [bytes, weights] = BLOCKS[type] ?? [0, 1];
    return (shape.reduce((a, b) => a * b, 1) / weights) * bytes;
  });
  const header = makeHeader(tensors, sizes, layers);
  const file = openSync(path, 'w');
  writeSync(file, header, 0, header.length, 0);
  let at = Math.ceil(header.length / ALIGN) * ALIGN;
  for (const [i, tensor] of tensors.entries()) {
    const size = sizes[i] ?? 0;
    if (tensor.fill === 'ones') {
      writeSync(file, new Uint8Array(new Float32Array(size / 4).fill(1).buffer), 0, size, at);
    } else if (tensor.fill === 'pattern') {
      const data = pattern(size, i);
      writeSync(file, data, 0, size, at);
    }
    at = Math.ceil((at + size) / ALIGN) * ALIGN;
  }
  ftruncateSync(file, at);
  closeSync(file);
  return at;
}

/** Q8_0 blocks: a scale of 1/128 and bytes of a generator. */
function pattern(size: number, seed: number): Uint8Array {
  const data = new Uint8Array(size);
  let state = 12345 + seed;
  for (let at = 0; at < size; at += 34) {
    data[at] = 0x00;
    data[at + 1] = 0x20;
    for (let j = 2; j < 34; j++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      data[at + j] = state >>> 24;
    }
  }
  return data;
}

function makeHeader(tensors: Tensor[], sizes: number[], layers: number): Buffer {
  const parts: Buffer[] = [];
  const u32 = (n: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(n);
    parts.push(bytes);
  };
  const u64 = (n: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(n));
    parts.push(bytes);
  };
  const text = (value: string) => {
    u64(Buffer.byteLength(value));
    parts.push(Buffer.from(value));
  };
  const numbers: [string, number][] = [
    ['context_length', 256],
    ['embedding_length', EMBD],
    ['block_count', layers],
    ['feed_forward_length', FF],
    ['attention.head_count', HEADS],
    ['attention.head_count_kv', KV_HEADS],
    ['vocab_size', VOCAB],
  ];
  parts.push(Buffer.from('GGUF'));
  u32(3);
  u64(tensors.length);
  u64(numbers.length + 3);
  for (const [key, value] of [['general.architecture', 'llama'], ['general.name', 'large']] as const) {
    text(key);
    u32(8);
    text(value);
  }
  for (const [key, value] of numbers) {
    text(`llama.${key}`);
    u32(4);
    u32(value);
  }
  text('llama.attention.layer_norm_rms_epsilon');
  u32(6);
  parts.push(Buffer.from(new Float32Array([1e-5]).buffer));
  let offset = 0;
  for (const [i, { name, shape, type }] of tensors.entries()) {
    text(name);
    u32(shape.length);
    shape.forEach(u64);
    u32(type);
    u64(offset);
    offset = Math.ceil((offset + (sizes[i] ?? 0)) / ALIGN) * ALIGN;
  }
  return Buffer.concat(parts);
}
