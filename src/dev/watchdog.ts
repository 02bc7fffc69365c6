/**
 * Watchdog program: a detached process that holds the other end of a pipe to the owner of a dev stack. When the owner
 * dies for any reason, the pipe closes, and the watchdog stops the servers and removes their directory.
 *
 * The program reads one line of JSON from standard input ({@link WatchOrder}), prints `ready` to standard output, and ends
 * without any action when it reads the line `release`.
 */
import { createInterface } from "node:readline";
import { removeDirectory } from "./run-directory.js";
import { stopServersOf } from "./sweep.js";

/** Request of the owner. */
export interface WatchOrder {
  /** Run directory. */
  readonly directory: string;
  /** True to remove the directory after its servers have stopped. */
  readonly temporary: boolean;
}

let order: WatchOrder | undefined;
let released = false;

for await (const line of createInterface({ input: process.stdin })) {
  if (line === "release") {
    released = true;
    break;
  }
  order = JSON.parse(line) as WatchOrder;
  process.stdout.write("ready\n");
}

if (!released && order !== undefined) {
  await stopServersOf(order.directory);
  if (order.temporary) removeDirectory(order.directory);
}
process.exit(0);
