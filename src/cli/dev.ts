/**
 * `hawser dev`: Postgres, nats-server and the schema, until it is told to stop.
 */
import { once } from "node:events";
import { defineCommand } from "citty";
import pc from "picocolors";
import { type DevStack, startDevStack } from "../dev/index.js";
import { migrate } from "../store/index.js";
import { print } from "./help.js";
import { jsonText, printable } from "./printable.js";
import { awaitStopRequest, type StopRequest } from "./stop-request.js";

/** The one line that `--json` prints. */
export interface DevAnnouncement {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  /** Null until the gateway is built. */
  readonly gatewayUrl: string | null;
}

export const dev = defineCommand({
  meta: {
    name: "dev",
    description:
      "Start an embedded Postgres, a nats-server and the schema for development. They stop on SIGINT and SIGTERM, " +
      "and when the program that started this command is gone. HAWSER_DATABASE_URL and HAWSER_NATS_URL name servers " +
      "to use instead",
  },
  args: {
    json: { type: "boolean", description: "Print one line of JSON when all answer, and nothing else" },
    directory: {
      type: "string",
      valueHint: "DIR",
      description: "Keep data and logs in DIR for the next start, instead of a temporary directory",
    },
  },
  run: async ({ args }) => {
    const request = awaitStopRequest();
    try {
      await runUntil(request, { json: args.json ?? false, directory: args.directory });
    } catch (error) {
      // Told to stop while it was starting: that is no failure, and everything has been stopped again.
      if (!request.signal.aborted) throw error;
    } finally {
      request.close();
    }
  },
});

async function runUntil(
  request: StopRequest,
  options: { readonly json: boolean; readonly directory: string | undefined },
): Promise<void> {
  const stack = await start(request, options.directory);
  request.hurry.addEventListener("abort", () => void stack.stop({ immediately: true }));
  try {
    announce(stack, options.json);
    request.started();
    if (!request.signal.aborted) await Promise.race([once(request.signal, "abort"), stack.closed]);
  } finally {
    await stack.stop();
  }
}

/** Starts the servers and brings the schema up to date. */
async function start(request: StopRequest, directory: string | undefined): Promise<DevStack> {
  const onProgress = (message: string) => print(process.stderr, pc.dim(printable(message)));
  // Whoever presses Ctrl-C twice does not want to wait; the watchdog clears up.
  const leave = () => process.exit(130);
  request.hurry.addEventListener("abort", leave);
  try {
    const stack = await startDevStack({ directory, onProgress, signal: request.signal });
    try {
      onProgress("Migrating the schema");
      const { leftOut } = await migrate({ databaseUrl: stack.databaseUrl });
      for (const line of leftOut) onProgress(`Left out of the schema: ${line}`);
      return stack;
    } catch (error) {
      await stack.stop();
      throw error;
    }
  } finally {
    request.hurry.removeEventListener("abort", leave);
  }
}

function announce(stack: DevStack, json: boolean): void {
  if (json) {
    const line: DevAnnouncement = { databaseUrl: stack.databaseUrl, natsUrl: stack.natsUrl!, gatewayUrl: null };
    process.stdout.write(`${jsonText(line)}\n`);
    return;
  }
  const lines = stack.servers.map(
    ({ name, version = "", url, origin }) =>
      `${pc.bold(name)} ${version}  ${pc.cyan(printable(url))}\n  from ${printable(origin)}`,
  );
  if (stack.directory !== undefined) lines.push(`Data and logs  ${printable(stack.directory)}`);
  print(process.stdout, `${lines.join("\n")}\nAll answer. Ctrl-C stops them.`);
}
