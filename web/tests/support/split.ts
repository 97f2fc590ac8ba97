// A GGUF file cut into parts, as llama.cpp's `gguf-split` does it: every part is a file of its own, the first has the metadata.

import { readFileSync, writeFileSync } from 'node:fs';

/** Bytes of the values of fixed size, by GGUF's number of their type. */
const SIZES: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const U16 = 2;
const I32 = 5;
const STRING = 8;
const ARRAY = 9;

/** Writes `path-00001-of-0000N.gguf` and so on, and gives their paths. */
export function writeSplit(source: string, path: string, parts: number): string[] {
  const file = readFileSync(source);
  let at = 8;
  const u32 = () => file.readUInt32LE((at += 4) - 4);
  const u64 = () => Number(file.readBigUInt64LE((at += 8) - 8));
  const skip = (bytes: number) => void (at += bytes);
  const skipValue = (type: number) => {
    if (type === STRING) skip(u64());
    else if (type === ARRAY) {
      const element = u32();
      for (let n = u64(); n > 0; n--) skipValue(element);
    } else skip(SIZES[type] ?? Number.NaN);
  };
  const tensorCount = u64();
  const keyCount = u64();
  const keysAt = at;
  for (let i = 0; i < keyCount; i++) {
    skip(u64());
    skipValue(u32());
  }
  const keys = file.subarray(keysAt, at);
  const tensors = Array.from({ length: tensorCount }, () => {
    const from = at;
    skip(u64());
    skip(8 * u32() + 4);
    const info = file.subarray(from, at);
    return { info, offset: u64(), end: 0 };
  });
  const align = (n: number) => Math.ceil(n / 32) * 32;
  const dataAt = align(at);
  for (const [i, tensor] of tensors.entries()) {
    tensor.end = tensors[i + 1]?.offset ?? file.length - dataAt;
  }

  const share = Math.ceil(tensorCount / parts);
  return Array.from({ length: parts }, (_, part) => {
    const own = tensors.slice(part * share, (part + 1) * share);
    const first = own[0]?.offset ?? 0;
    const count = (n: number) => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64LE(BigInt(n));
      return bytes;
    };
    const key = (name: string, type: number, value: number) => {
      const bytes = Buffer.alloc(4 + (SIZES[type] ?? 0));
      bytes.writeUInt32LE(type);
      bytes.writeUIntLE(value, 4, bytes.length - 4);
      return Buffer.concat([count(name.length), Buffer.from(name), bytes]);
    };
    const header = Buffer.concat([
      file.subarray(0, 8),
      count(own.length),
      count(part === 0 ? keyCount + 3 : 3),
      part === 0 ? keys : Buffer.alloc(0),
      key('split.no', U16, part),
      key('split.count', U16, parts),
      key('split.tensors.count', I32, tensorCount),
      ...own.flatMap(({ info, offset }) => [info, count(offset - first)]),
    ]);
    const padding = Buffer.alloc(align(header.length) - header.length);
    const data = file.subarray(dataAt + first, dataAt + (own.at(-1)?.end ?? first));
    const name = `${path}-${String(part + 1).padStart(5, '0')}-of-${String(parts).padStart(5, '0')}.gguf`;
    writeFileSync(name, Buffer.concat([header, padding, data]));
    return name;
  });
}
