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
import { identityOf, isAlive, type ProcessIdentity, reportReady } from "../dev/index.js";
import { answerCalls } from "./calls.js";
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

const server = createServer((socket) => serve(socket)).listen(socketPath);
try {
  await once(server, "listening");
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
  process.exit(0);
}
reportReady();
removeLeftovers();
// Loaded only now, because most keepers that are started at once end before.
const starting = import("./kept-stacks.js").then(({ KeptStacks }) => KeptStacks.start(log));
starting.catch((error: Error) => log(error.message));
setInterval(() => {
  if (!isAlive(runner)) void end();
}, checkMs);

/** Serves one process of the run, and releases its resources when it ends. */
function serve(socket: Socket): void {
  /** Releases of the process's stacks and of the templates that it prepares, by id and key. */
  const held = new Map<string, () => Promise<void>>();
  const programs: ProcessIdentity[] = [];
  programsOf.set(socket, programs);
  const hold = async (name: string, release: () => Promise<void>): Promise<void> => {
    held.set(name, release);
    // The caller may have ended in the meantime.
    if (socket.destroyed) await releaseAll();
  };
  const releaseAll = async (): Promise<void> => {
    const releases = [...held.values()];
    held.clear();
    for (const release of releases) await release();
  };
  answerCalls(socket, {
    ready: async () => void (await starting),
    template: async ({ key }) => {
      const { databases } = await starting;
      const make = await databases.template(key);
      if (make !== null) await hold(key, () => databases.prepared(key, false));
      return { make };
    },
    prepared: async ({ key, failed }) => {
      held.delete(key);
      await (await starting).databases.prepared(key, !failed);
    },
    open: async (options) => {
      const stacks = await starting;
      const made = await stacks.open(options);
      await hold(made.id, () => stacks.drop(made.id));
      return made;
    },
    drop: async ({ id }) => {
      held.delete(id);
      await (await starting).drop(id);
    },
    cut: async ({ id, side, silent }) => (await starting).relay(id, side).cut(silent),
    restore: async ({ id, side }) => (await starting).relay(id, side).restore(),
    addProgram: async ({ pid }) => {
      programs.push(identityOf(pid));
      if (socket.destroyed || ending !== undefined) killAll(programs);
    },
    stop: () => end(),
  });
  socket.on("close", () => {
    programsOf.delete(socket);
    killAll(programs);
    // When the keeper ends, all stacks are dropped together.
    if (ending === undefined) releaseAll().catch((error: Error) => log(error.message));
  });
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
