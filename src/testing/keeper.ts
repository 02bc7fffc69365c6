/**
 * The program of the keeper: a detached process that starts the servers of a run of tests, answers the processes of the run
 * ({@link Calls}), and ends with the run: when the runner has ended, however it did, or when the global set-up says so. If
 * the keeper itself is killed, the watchdog of its dev stack stops the servers.
 *
 * Its arguments are the socket and the identity of the runner. Several may be started at once: only one can bind the
 * socket, and the others end.
 */
import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { identityOf, isAlive, type ProcessIdentity } from "../dev/index.js";
import { answerCalls } from "./calls.js";
import type { KeptStacks } from "./kept-stacks.js";
import { removeLeftovers } from "./run.js";

const [socketPath, owner] = process.argv.slice(2) as [string, string];
const runner = JSON.parse(owner) as ProcessIdentity;
/** How long the servers outlive a runner at most; elsewhere than on Linux it takes a process to look. */
const lookMs = process.platform === "linux" ? 100 : 1_000;

const tell = (line: string): void => console.error(line);
/** What the processes of the run have started, by their connections. */
const programsOf = new Map<Socket, ProcessIdentity[]>();
let ending: Promise<void> | undefined;
let onBound: () => void = () => undefined;
const bound = new Promise<void>((resolve) => {
  onBound = resolve;
});
// Loaded when it is known that this process is the keeper.
const starting = bound.then(() => import("./kept-stacks.js")).then(({ KeptStacks }) => KeptStacks.start(tell));
starting.catch((error: Error) => tell(error.message));

const server = createServer((socket) => serve(socket));
server.listen(socketPath);
try {
  await once(server, "listening");
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
  process.exit(0);
}
removeLeftovers();
onBound();
setInterval(() => {
  if (!isAlive(runner)) void end();
}, lookMs);

/** What one process of the run asks for, and what it leaves behind. */
function serve(socket: Socket): void {
  const stacks = new Set<string>();
  const templates = new Set<string>();
  const programs: ProcessIdentity[] = [];
  programsOf.set(socket, programs);
  answerCalls(socket, {
    ready: async () => void (await ready()),
    template: async ({ key }) => {
      const make = await (await ready()).databases.template(key);
      if (make !== null) templates.add(key);
      // Its caller has gone in the meantime.
      if (make !== null && socket.destroyed) await leave();
      return { make };
    },
    prepared: async ({ key, failed }) => {
      templates.delete(key);
      await (await ready()).databases.prepared(key, !failed);
    },
    open: async (wish) => {
      const made = await (await ready()).open(wish);
      stacks.add(made.id);
      if (socket.destroyed) await leave();
      return made;
    },
    drop: async ({ id }) => {
      stacks.delete(id);
      await (await ready()).drop(id);
    },
    cut: async ({ id, side, silent }) => (await ready()).relay(id, side).cut(silent),
    restore: async ({ id, side }) => (await ready()).relay(id, side).restore(),
    adopt: async ({ pid }) => {
      programs.push(identityOf(pid));
      if (socket.destroyed || ending !== undefined) killAll(programs);
    },
    stop: () => end(),
  });
  const leave = async (): Promise<void> => {
    const held = await ready();
    for (const key of templates) await held.databases.prepared(key, false);
    for (const id of stacks) await held.drop(id);
    templates.clear();
    stacks.clear();
  };
  socket.on("close", () => {
    programsOf.delete(socket);
    killAll(programs);
    // All stacks go at once then.
    if (ending === undefined) leave().catch((error: Error) => tell(error.message));
  });
}

async function ready(): Promise<KeptStacks> {
  return await starting;
}

/** Kills the processes and what they have started, those that are still the same ones. */
function killAll(programs: ProcessIdentity[]): void {
  for (const program of programs.splice(0)) {
    if (!isAlive(program)) continue;
    try {
      process.kill(-program.pid, "SIGKILL");
    } catch {
      // It has ended meanwhile.
    }
  }
}

function end(): Promise<void> {
  ending ??= (async () => {
    // Nobody finds this keeper any more: whoever comes now starts another one.
    server.close();
    // A process of the run may outlive the runner.
    for (const programs of programsOf.values()) killAll(programs);
    await starting.then(
      (stacks) => stacks.stop(),
      () => undefined,
    );
    rmSync(socketPath.replace(/\.sock$/, ".log"), { force: true });
  })().catch((error: Error) => tell(error.message));
  // The answer to whoever asked for the end goes first; it is on its way when the next turn begins.
  void ending.then(() => setImmediate(() => setImmediate(() => process.exit(0))));
  return ending;
}
