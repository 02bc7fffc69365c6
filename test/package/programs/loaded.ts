/**
 * Loads a module of `src/`, and prints the paths of all files that this loads, as JSON on standard error. Arguments: the
 * module, relative to `src/`, and a command line of `hawser`, if the module is the one that runs it.
 */
import { Session } from "node:inspector";
import { fileURLToPath } from "node:url";

const urls: string[] = [];
const session = new Session();
session.connect();
session.on("Debugger.scriptParsed", ({ params }) => urls.push(params.url));
session.post("Debugger.enable");
const [module, ...args] = process.argv.slice(2);
const loaded = (await import(`../../../src/${module}`)) as { runCli?: (args: readonly string[]) => Promise<number> };
if (args.length > 0) process.exitCode = await loaded.runCli?.(args);
session.disconnect();
process.stderr.write(JSON.stringify(urls.filter((url) => url.startsWith("file:")).map((url) => fileURLToPath(url))));
