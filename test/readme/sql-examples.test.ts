/**
 * The SQL examples of the pages do what the pages say, in the order of the page, against a real Postgres and a nats-server.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { describe, expect, it, onTestFinished } from "vitest";
import { testGateway } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { projectDirectory } from "../support/program.js";
import { sqlSnippetsOf } from "./snippets.js";

/** Values as Postgres writes them, as psql shows them. */
const asText = { getTypeParser: () => (value: string | Buffer) => value } as unknown as pg.CustomTypesConfig;

/** What psql would print of a statement with -At and -P null=NULL; nothing for functions that return nothing. */
async function outcomeOf(client: pg.Client, statement: string): Promise<string[]> {
  const printed: string[] = [];
  const onNotice = (notice: { readonly message: string | undefined }) => printed.push(`NOTICE: ${notice.message}`);
  client.on("notice", onNotice);
  try {
    const { rows } = await client.query<(string | null)[]>({ text: statement, rowMode: "array", types: asText });
    for (const row of rows) {
      const line = row.map((value) => value ?? "NULL").join("|");
      if (line !== "") printed.push(line);
    }
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error;
    printed.push(`ERROR ${error.code}: ${error.message}`);
  } finally {
    client.off("notice", onNotice);
  }
  return printed;
}

/** The other side, which the page speaks of: a stream, and somebody who answers. */
async function startOthers(nats: NatsConnection): Promise<void> {
  await (await jetstreamManager(nats)).streams.add({ name: "ORDERS", subjects: ["orders.>"] });
  nats.subscribe("stock.count", { callback: (_error, message) => void message.respond("200 m") });
  nats.subscribe("stock.asleep", { callback: () => undefined });
  await nats.flush();
}

describe.each(["docs/nats-from-sql.md", "README.md"])("the SQL examples of %s", (page) => {
  it("print what the page says", async () => {
    const snippets = sqlSnippetsOf(readFileSync(join(projectDirectory, page), "utf8"));
    expect(snippets.length).toBeGreaterThan(0);
    const server = await startNatsServer({ jetStream: true });
    onTestFinished(() => server[Symbol.asyncDispose]());
    await using gateway = await testGateway({ natsUrl: server.url });
    await startOthers(gateway.nats);
    for (const { line, statements, prints } of snippets) {
      const printed: string[] = [];
      for (const statement of statements) printed.push(...(await outcomeOf(gateway.client, statement)));
      expect({ line, printed: printed.join("\n") }).toEqual({ line, printed: (prints ?? "").trimEnd() });
    }
  });
});
