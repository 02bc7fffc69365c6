import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** Postgres and NATS for development. */
export interface Stack extends AsyncDisposable {
  readonly databaseUrl: string;
  readonly natsUrl: string;
}

/** Starts `hawser dev`: Postgres, a nats-server, the schema, and `hawser serve`. */
export async function startStack(): Promise<Stack> {
  const child = spawn("hawser", ["dev", "--json", "--port", "0", "--nats-port", "0"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const line = await firstLine(child);
  const { databaseUrl, natsUrl } = JSON.parse(line) as { databaseUrl: string; natsUrl: string };
  return {
    databaseUrl,
    natsUrl,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null) return;
      child.kill("SIGINT");
      await once(child, "exit");
    },
  };
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error("hawser dev has no output");
  for await (const line of createInterface({ input: child.stdout })) return line;
  throw new Error("hawser dev ended without saying where its servers are");
}
