/**
 * Logs far more than is kept for a reader, and says on standard output when it has gone on with its work. Then it waits
 * for a byte on standard input, logs the last line, and ends.
 */
import { once } from "node:events";
import { setImmediate as turn } from "node:timers/promises";
import { LogOutput } from "../../../src/operating/cli/log-output.js";

const log = new LogOutput("info");
for (let line = 0; line < 100_000; line++) {
  log.logger.info({ line }, "flood");
  if (line % 1000 === 0) await turn();
}
process.stdout.write("worked\n");
await once(process.stdin, "data");
process.stdin.destroy();
log.logger.info({}, "last");
await log.close();
process.stdout.write("closed\n");
