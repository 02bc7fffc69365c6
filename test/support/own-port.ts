/**
 * Ports for what a test starts, stops and starts again at the same address.
 *
 * While it is stopped, its port looks free to everybody who looks for one. These ports are therefore below those that `hawser dev`
 * and `freePort()` of `src/development/dev` choose from, each worker of a run has a part of its own, and none is given out twice before all
 * others of that part.
 */

import { isFree } from "../../src/development/dev/free-port.js";

const range = { first: 4_000, last: 9_999 };
/** More workers than any run has. */
const parts = 64;
const size = Math.floor((range.last - range.first + 1) / parts);
const first = range.first + (Number(process.env["VITEST_POOL_ID"] ?? 0) % parts) * size;

/** Position of the next one; other runs on this machine probably begin elsewhere. */
let next = Math.floor(Math.random() * size);

/** A TCP port of 127.0.0.1 that nothing else of this run uses. */
export async function ownPort(): Promise<number> {
  for (let tried = 0; tried < size; tried++) {
    const port = first + (next++ % size);
    if (await isFree(port)) return port;
  }
  throw new Error(`All ports from ${first} to ${first + size - 1} are in use.`);
}
