/**
 * The program of the watchdog: a detached process that holds the other end of a pipe to the owner of a dev stack. When
 * the owner dies, however it dies, the pipe closes and the watchdog stops the servers and removes their directory.
 *
 * It is told what to watch by one line of JSON on standard input ({@link WatchOrder}), says `ready` on standard output,
 * and ends without doing anything when it reads the line `release`.
 */
import { createInterface } from "node:readline";
import { removeDirectory } from "./run-directory.js";
import { stopServersOf } from "./sweep.js";

/** What the owner asks for. */
export interface WatchOrder {
  /** The run directory. */
  readonly directory: string;
  /** Remove the directory after stopping its servers. */
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
