/**
 * The SQL examples of the pages do what the pages say, in the order of the page, against a real Postgres and a nats-server.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { describe, expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { pagesOfUsers, readPage } from "./pages.js";
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

/**
 * A server with JetStream, and with an account of its own that is asked what is subscribed: what a subscription that is not
 * there yet misses, no page would print.
 */
const serverConfig = `
  accounts {
    USERS { jetstream: enabled, users: [{ user: anybody, password: anybody }] }
    SYS { users: [{ user: system, password: system }] }
  }
  system_account: SYS
  no_auth_user: anybody`;

const asSystem = { user: "system", pass: "system" };

interface SubscriptionsAnswer {
  readonly data: { readonly subscriptions_list?: readonly { readonly subject: string }[] };
}

/** What the server has subscribers for. */
async function subscribedSubjects(system: NatsConnection): Promise<string[]> {
  const question = JSON.stringify({ subscriptions: true, limit: 1000 });
  const answer = await system.request("$SYS.REQ.SERVER.PING.SUBSZ", question);
  return (answer.json<SubscriptionsAnswer>().data.subscriptions_list ?? []).map(({ subject }) => subject);
}

/** The subjects that a statement has functions called for from then on. */
const subjectsIn = (statement: string): string[] =>
  [...statement.matchAll(/(?:nats_subscribe|pgnats_register_responder)\('([^']+)'/g)].map(([, subject]) => subject!);

/** The other side, which the page speaks of: a stream, and somebody who answers. */
async function startOthers(nats: NatsConnection): Promise<void> {
  await (await jetstreamManager(nats)).streams.add({ name: "ORDERS", subjects: ["orders.>"] });
  nats.subscribe("stock.count", { callback: (_error, message) => void message.respond("200 m") });
  nats.subscribe("stock.asleep", { callback: () => undefined });
  await nats.flush();
}

const pagesWithSql = pagesOfUsers.filter((page) => sqlSnippetsOf(readPage(page)).length > 0);

it("are in the README and on the pages of both ways", () => {
  expect(pagesWithSql).toEqual(["README.md", "docs/nats-from-sql.md", "docs/nats-to-sql.md"]);
});

describe.each(pagesWithSql)("the SQL examples of %s", (page) => {
  it("print what the page says", { timeout: 120_000 }, async () => {
    const snippets = sqlSnippetsOf(readPage(page));
    const server = await startNatsServer({ jetStream: true, config: serverConfig });
    onTestFinished(() => server[Symbol.asyncDispose]());
    await using gateway = await testGateway({ natsUrl: server.url });
    await startOthers(gateway.nats);
    const system = await connect({ servers: server.url, ...asSystem });
    onTestFinished(() => system.close());
    const run = async (statements: readonly string[]): Promise<string> => {
      const printed: string[] = [];
      for (const statement of statements) {
        const outcome = await outcomeOf(gateway.client, statement);
        printed.push(...outcome);
        if (outcome.some((line) => line.startsWith("ERROR"))) continue;
        for (const subject of subjectsIn(statement)) {
          const isThere = async () => (await subscribedSubjects(system)).includes(subject);
          await eventually(`"${subject}" is subscribed`, isThere);
        }
      }
      return printed.join("\n");
    };
    for (const { line, statements, until, prints } of snippets) {
      const expected = (prints ?? "").trimEnd();
      let printed = await run(statements);
      const deadline = Date.now() + 20_000;
      while (until && printed !== expected && Date.now() < deadline) printed = await run(statements);
      expect({ line, printed }).toEqual({ line, printed: expected });
    }
  });
});
