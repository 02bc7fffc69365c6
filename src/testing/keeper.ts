/**
 * Keeper program: a detached process that starts the servers of a test run, answers the processes of the run ({@link
 * Calls}), and ends with the run: when the runner has ended for any reason, or when the global set-up requests it. If
 * the keeper itself is killed, the watchdog of its dev stack stops the servers.
 *
 * Its arguments are the socket and the identity of the runner. Several keepers may be started at once: only one can
 * bind the socket, and the others end.
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
/**
 * Interval of the checks whether the runner is alive, in ms, and so the longest time that the servers outlive the
 * runner. It is longer outside Linux, where each check starts a process.
 */
const checkMs = process.platform === "linux" ? 100 : 1_000;

const log = (line: string): void => console.error(line);
/** Programs that the processes of the run have started, by connection. */
const programsOf = new Map<Socket, ProcessIdentity[]>();
let ending: Promise<void> | undefined;
let onBound: () => void = () => undefined;
const bound = new Promise<void>((resolve) => {
  onBound = resolve;
});
// Loaded only after this process has become the keeper.
const starting = bound.then(() => import("./kept-stacks.js")).then(({ KeptStacks }) => KeptStacks.start(log));
starting.catch((error: Error) => log(error.message));

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
}, checkMs);

/** Serves one process of the run, and releases its resources when it ends. */
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
      // The caller may have ended in the meantime.
      if (make !== null && socket.destroyed) await leave();
      return { make };
    },
    prepared: async ({ key, failed }) => {
      templates.delete(key);
      await (await ready()).databases.prepared(key, !failed);
    },
    open: async (options) => {
      const made = await (await ready()).open(options);
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
    addProgram: async ({ pid }) => {
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
    // When the keeper ends, all stacks are dropped together.
    if (ending === undefined) leave().catch((error: Error) => log(error.message));
  });
}

async function ready(): Promise<KeptStacks> {
  return await starting;
}

/** Kills the process groups, unless their pids belong to other processes by now. */
function killAll(programs: ProcessIdentity[]): void {
  for (const program of programs.splice(0)) {
    if (!isAlive(program)) continue;
    try {
      process.kill(-program.pid, "SIGKILL");
    } catch {
      // The process has ended in the meantime.
    }
  }
}

function end(): Promise<void> {
  ending ??= (async () => {
    // Processes that look for a keeper from now on start another one.
    server.close();
    // A process of the run may outlive the runner.
    for (const programs of programsOf.values()) killAll(programs);
    await starting.then(
      (stacks) => stacks.stop(),
      () => undefined,
    );
    rmSync(socketPath.replace(/\.sock$/, ".log"), { force: true });
  })().catch((error: Error) => log(error.message));
  // The answer to the caller of stop is written before the exit, which waits for two turns of the event loop.
  void ending.then(() => setImmediate(() => setImmediate(() => process.exit(0))));
  return ending;
}
