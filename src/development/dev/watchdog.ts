/**
 * Watchdog program: a detached process with a channel to the owner of a dev stack. When the owner dies for any reason,
 * the channel closes, and the watchdog stops the servers and removes their directory. An owner that has done so itself
 * ends the watchdog by a signal.
 *
 * Its arguments are the run directory, and `temporary` if the directory is to be removed.
 */
import { once } from "node:events";
import { reportReady } from "./detached.js";
import { removeDirectory } from "./run-directory.js";
import { stopServersOf } from "./sweep.js";

const [directory, kind] = process.argv.slice(2) as [string, string | undefined];
reportReady();
if (process.connected) await once(process, "disconnect");
await stopServersOf(directory);
if (kind === "temporary") removeDirectory(directory);
