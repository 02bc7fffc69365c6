/**
 * `hawser dev`: Postgres, nats-server, the schema, and what `hawser serve` runs, until it is told to stop.
 */
import { once } from "node:events";
import { defineCommand } from "citty";
import pc from "picocolors";
import { type DevStack, startDevStack } from "../dev/index.js";
import type { Serve } from "../serve/index.js";
import { withoutPasswords } from "./conceal.js";
import { startDevGateway } from "./dev-gateway.js";
import { withExamples } from "./examples.js";
import { print } from "./help.js";
import { jsonText, printable } from "./printable.js";
import { awaitStopRequest, type StopRequest } from "./stop-request.js";

/** The one line that `--json` prints. */
export interface DevAnnouncement {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  /** Where the SQL functions are answered, without the password; null where they could not be installed. */
  readonly gatewayUrl: string | null;
}

export const dev = withExamples(
  defineCommand({
    meta: {
      name: "dev",
      description:
        "Start an embedded Postgres, a nats-server, the schema and `hawser serve` for development. They stop on SIGINT " +
        "and SIGTERM, and when the program that started this command is gone. HAWSER_DATABASE_URL and HAWSER_NATS_URL name servers " +
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
  }),
  [
    ["hawser dev", "Until Ctrl-C; what it has stored is gone then"],
    ["hawser dev --directory .hawser", "The same data at the next start, at another port"],
  ],
);

async function runUntil(
  request: StopRequest,
  options: { readonly json: boolean; readonly directory: string | undefined },
): Promise<void> {
  const { stack, serve } = await start(request, options.directory);
  const stop = async (how: { readonly immediately: boolean }) => {
    if (!how.immediately) await serve?.stop();
    await stack.stop(how);
  };
  request.hurry.addEventListener("abort", () => void stop({ immediately: true }));
  try {
    announce(stack, serve, options.json);
    request.started();
    if (!request.signal.aborted) await Promise.race([once(request.signal, "abort"), stack.closed]);
  } finally {
    await stop({ immediately: request.hurry.aborted });
  }
}

/** Starts the servers, prepares the database, and answers its SQL functions. */
async function start(
  request: StopRequest,
  directory: string | undefined,
): Promise<{ stack: DevStack; serve: Serve | undefined }> {
  const onProgress = (message: string) => print(process.stderr, pc.dim(printable(message)));
  // Whoever presses Ctrl-C twice does not want to wait; the watchdog clears up.
  const leave = () => process.exit(130);
  request.hurry.addEventListener("abort", leave);
  try {
    const stack = await startDevStack({ directory, onProgress, signal: request.signal });
    try {
      onProgress("Preparing the database");
      const { databaseUrl, natsUrl } = stack;
      return { stack, serve: await startDevGateway({ databaseUrl, natsUrl: natsUrl!, onProgress }) };
    } catch (error) {
      await stack.stop();
      throw error;
    }
  } finally {
    request.hurry.removeEventListener("abort", leave);
  }
}

function announce(stack: DevStack, serve: Serve | undefined, json: boolean): void {
  const gatewayUrl = serve?.gatewayUrl ?? null;
  if (json) {
    const line: DevAnnouncement = { databaseUrl: stack.databaseUrl, natsUrl: stack.natsUrl!, gatewayUrl };
    process.stdout.write(`${jsonText(line)}\n`);
    return;
  }
  const lines = stack.servers.map(
    ({ name, version = "", url, origin }) =>
      `${pc.bold(name)} ${version}  ${pc.cyan(shown(url))}\n  from ${printable(origin)}`,
  );
  if (gatewayUrl !== null) {
    lines.push(`${pc.bold("hawser serve")}  ${pc.cyan(shown(gatewayUrl))}  (for the SQL functions only)`);
  }
  if (stack.directory !== undefined) lines.push(`Data and logs  ${printable(stack.directory)}`);
  // Whoever has named a Postgres of their own has set it already.
  if (!process.env["HAWSER_DATABASE_URL"]) {
    lines.push(`For programs and the other commands:\n  export HAWSER_DATABASE_URL=${stack.databaseUrl}`);
  }
  print(process.stdout, `${lines.join("\n")}\nAll answer. Ctrl-C stops them.`);
}

/** A server of the user's own may have a password. */
function shown(url: string): string {
  return printable(withoutPasswords(url));
}
