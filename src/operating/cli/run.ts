/** Commands, and the way from the command line to a command and its exit status. */
import { exitStatusOf, HawserError } from "../../foundation/errors/index.js";
import { version } from "../../foundation/runtime/index.js";
import {
  didYouMean,
  parseArguments,
  seeHelp,
  type Values,
  whereUrlsBelong,
  withNegativeNumbers,
} from "./command-line.js";
import { commandHelp, type ListedCommand, overview } from "./help.js";
import { describeError, print } from "./output.js";

/**
 * Commands by name. To add one: write it in a file of its own, like `secret.ts`, and add it here. Each command is loaded
 * when it is run, so that `hawser send` does not load the dependencies of `dev`.
 */
export const commands: Readonly<Record<string, ListedCommand>> = {
  dev: {
    summary: "Start an embedded Postgres, a nats-server, the schema and `hawser serve` for development",
    load: () => import("./dev.js"),
  },
  init: {
    summary: "Prepare a database for Hawser: its schema, roles and grants, and NATS from SQL",
    load: () => import("./init.js"),
  },
  uninstall: {
    summary:
      "Remove NATS from SQL from a database: functions, wrappers, event triggers, schemas, and dblink if `hawser init` made it",
    load: () => import("./uninstall.js"),
  },
  extension: {
    summary:
      "Let a Postgres server of this machine CREATE EXTENSION litmus_pgnats, which prepares a database like `hawser init`; " +
      "if the server's files are not writable, use `hawser init`",
    load: () => import("./extension.js"),
  },
  serve: {
    summary: "Answer the SQL functions that reach NATS, and run the functions of subscriptions and responders",
    load: () => import("./serve.js"),
  },
  send: { summary: "Send a message to a topic", load: () => import("./send.js") },
  request: {
    summary: "Send a request to one listener of a topic, and print its answer",
    load: () => import("./request.js"),
  },
  enqueue: {
    summary: "Enqueue a message for a topic or a NATS subject, with a priority or a delay",
    load: () => import("./enqueue.js"),
  },
  listen: { summary: "Print the messages of a topic", load: () => import("./listen.js") },
  topics: {
    summary: "List, pause and limit topics, and keep the results of their jobs",
    load: () => import("./topics.js"),
  },
  peers: { summary: "List, replace and forget peers", load: () => import("./peers.js") },
  pending: {
    summary:
      "List the messages that wait for a listener, or are being handled, by listener, topic and sender, the oldest first",
    load: () => import("./pending.js"),
  },
  jobs: {
    summary:
      "List jobs in all states, show what has become of one and what it has returned, cancel jobs, and move those that " +
      "wait in pg-boss or graphile-worker, in the same database, to the queue",
    load: () => import("./jobs.js"),
  },
  why: {
    summary: "Say what a job waits for: the condition that is not met, what holds it, since when, and the remedy",
    load: () => import("./why.js"),
  },
  secret: {
    summary: "List, rotate and retire the mesh secrets, with which peers authenticate each other",
    load: () => import("./secret.js"),
  },
  outbox: {
    summary:
      "Show the outbox for NATS, list its messages that are due later, cancel them, and publish messages again that NATS " +
      "has lost",
    load: () => import("./outbox.js"),
  },
  schedules: {
    summary:
      "List the schedules: their messages, last and next run, and the reason if one does not run; add, run and remove them",
    load: () => import("./schedules.js"),
  },
  streams: { summary: "List, make, change and delete JetStream streams", load: () => import("./streams.js") },
  dead: { summary: "List, retry, edit and discard dead letters", load: () => import("./dead.js") },
  audit: {
    summary:
      "List what operators have done: who has retried, discarded, cancelled, paused or handed over what, and when",
    load: () => import("./audit.js"),
  },
  page: {
    summary:
      "Serve the operator's page: the verdict of `hawser doctor`, dead letters by cause, to retry and discard, and the state " +
      "of peers, outbox, streams and schedules",
    load: () => import("./page.js"),
  },
  top: {
    summary:
      "Show the state of an installation in a terminal, refreshed: the verdict of `hawser doctor`, leader, peers, topics, " +
      "outbox, backlog, stream subscriptions, schedules, and dead letters by cause",
    load: () => import("./top.js"),
  },
  mcp: {
    summary: "Let AI agents ask what is wrong and what waits, by the Model Context Protocol; it changes nothing",
    load: () => import("./mcp.js"),
  },
  doctor: { summary: "Find problems of an installation and their remedies", load: () => import("./doctor.js") },
};

/**
 * Runs the command that the arguments name and resolves with the exit status: 0, or the status of the error's code.
 * Errors go to standard error; standard output has only the requested output.
 */
export async function runCli(args: readonly string[]): Promise<number> {
  try {
    await dispatch(args);
    return 0;
  } catch (error) {
    print(process.stderr, describeError(error));
    return exitStatusOf(error);
  }
}

/** Commands by names that other programs give them. */
const usualNames: Readonly<Record<string, string>> = {
  status: "doctor",
  health: "doctor",
  check: "doctor",
  dashboard: "page",
  ui: "page",
  queue: "jobs",
  queues: "topics",
  workers: "peers",
  failed: "dead",
  retry: "dead retry",
  migrate: "init",
  install: "init",
  cancel: "jobs cancel",
  import: "jobs import",
  cron: "schedules",
};

async function dispatch(args: readonly string[]): Promise<void> {
  const [name, ...given] = args;
  if (name === undefined) {
    print(process.stderr, overview(commands));
    throw new HawserError("invalid_argument", "No command is given. Name one of the commands above.");
  }
  if (name === "--help" || name === "-h") return print(process.stdout, overview(commands));
  if (name === "--version" || name === "-v") return print(process.stdout, version);
  const listed = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (listed === undefined) {
    const what = name.startsWith("-") ? `There is no flag ${name} before the command` : `There is no command "${name}"`;
    const known = Object.keys(commands);
    const guess = Object.hasOwn(usualNames, name) ? usualNames[name] : undefined;
    const close = guess === undefined ? didYouMean(name, known, "`hawser ").replace(/\?$/, "`?") : "";
    const hint = name.startsWith("-") ? "" : guess === undefined ? close : ` \`hawser ${guess}\` may be what you want.`;
    throw new HawserError(
      "invalid_argument",
      `${what}.${hint}${whereUrlsBelong(name)} The commands are ${known.join(", ")}. ${seeHelp()}`,
    );
  }
  const { command } = await listed.load();
  const rest = withNegativeNumbers(command.args, given);
  // After `--`, everything is an argument, even if it looks like a flag.
  const flags = rest.slice(0, rest.includes("--") ? rest.indexOf("--") : undefined);
  if (flags.includes("--help") || flags.includes("-h")) {
    return print(process.stdout, commandHelp(name, listed.summary, command));
  }
  const values = parseArguments(name, command.args, rest);
  try {
    await command.run(values, rest);
  } catch (error) {
    throw "database-url" in command.args ? namingDefaults(error, values) : error;
  }
}

/** Codes of errors that a connection to the wrong database can cause. */
const ofTheDatabase: ReadonlySet<string> = new Set(["store_failed", "startup_failed", "schema_missing"]);

/**
 * Adds to an error of the database that libpq's defaults were used, if neither an option nor the environment named a
 * database. Returns any other error unchanged.
 */
export function namingDefaults(error: unknown, given: Values): unknown {
  if (!(error instanceof HawserError) || !ofTheDatabase.has(error.code)) return error;
  if (given["database-url"] !== undefined || process.env["HAWSER_DATABASE_URL"]) return error;
  const { code, message, outcome } = error;
  const why = "no --database-url and no HAWSER_DATABASE_URL were given: libpq's defaults were used";
  return new HawserError(code, `${message}; ${why}`, { cause: error, ...(outcome !== undefined && { outcome }) });
}
