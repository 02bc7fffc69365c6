/**
 * The SQL examples of the pages, and the programs beside them: they do what the pages say, in the order of the page, against a
 * real Postgres and a nats-server.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { transform } from "esbuild";
import pg from "pg";
import { expect, onTestFinished } from "vitest";
import { madeOf } from "../message-sql/support/made.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { sampleProject, startIn } from "../testing/sample-project.js";
import { pagesOfUsers, readPage } from "./pages.js";
import { blocksOf, pageStepsOf } from "./snippets.js";

/** Values as Postgres writes them, as psql shows them. */
const asText = { getTypeParser: () => (value: string | Buffer) => value } as unknown as pg.CustomTypesConfig;

/** Output of psql for a statement with -At and -P null=NULL; nothing for functions that return nothing. */
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

/** Subjects that the server has subscribers for. */
async function subscribedSubjects(system: NatsConnection): Promise<string[]> {
  const question = JSON.stringify({ subscriptions: true, limit: 1000 });
  const answer = await system.request("$SYS.REQ.SERVER.PING.SUBSZ", question);
  return (answer.json<SubscriptionsAnswer>().data.subscriptions_list ?? []).map(({ subject }) => subject);
}

/** The subjects that a statement has functions called for from then on. */
const subjectsIn = (statement: string): string[] =>
  [...statement.matchAll(/(?:nats_subscribe|pgnats_register_responder)\('([^']+)'/g)].map(([, subject]) => subject!);

/** Objects that a page mentions as existing, and does not make itself. */
const others: Readonly<Record<string, (client: pg.Client) => Promise<void>>> = {
  "docs/typed-sql.md": async (client) => {
    const messages = blocksOf(readPage("docs/typed-sql.md")).find(({ info }) => info === "proto")!.content;
    const head = `syntax = "proto3"; package acme.v1;
      import "buf/validate/validate.proto"; import "hawser/v1/topic.proto";`;
    await client.query((await madeOf({ "acme/v1/orders.proto": `${head}\n${messages}` }, "schema=shop")).sql);
  },
};

/** Starts a program of the page, which ends with the test, and waits until it has printed what the page says. */
async function startBeside(code: string, prints: string | undefined, env: Record<string, string>): Promise<void> {
  const project = sampleProject({ "program.mjs": (await transform(code, { loader: "ts", target: "node20" })).code });
  const program = startIn(project, ["program.mjs"], env);
  let printed = "";
  let failed = "";
  program.child.stdout!.on("data", (chunk: Buffer) => {
    printed += chunk.toString();
  });
  void program.ended.then(({ status, stderr }) => {
    if (status !== 0) failed = `it ended with ${status}: ${stderr}`;
  });
  onTestFinished(async () => {
    program.child.kill();
    expect((await program.ended).stderr).toBe("");
  });
  await eventually(
    "the program prints what the page says",
    () => failed !== "" || printed.length >= (prints ?? "").length,
  );
  expect(failed + printed).toBe(prints ?? "");
}

/** The pages with such examples. */
export const pagesWithSql = pagesOfUsers.filter((page) => pageStepsOf(readPage(page)).length > 0);

/** Runs the examples of a page, each after those before it, and expects that they print what the page says. */
export async function expectSaidOutput(page: string): Promise<void> {
  const server = await startNatsServer({ jetStream: true, config: serverConfig });
  onTestFinished(() => server[Symbol.asyncDispose]());
  const gateway = await testGateway({ natsUrl: server.url });
  onTestFinished(() => gateway[Symbol.asyncDispose]());
  await others[page]?.(gateway.client);
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
  for (const step of pageStepsOf(readPage(page))) {
    const { line, prints } = step;
    if (step.kind === "program") {
      await startBeside(step.code, prints, { HAWSER_DATABASE_URL: gateway.database.url, NATS_URL: server.url });
      continue;
    }
    const expected = (prints ?? "").trimEnd();
    let printed = await run(step.statements);
    const deadline = Date.now() + 60_000;
    while (step.until && printed !== expected && Date.now() < deadline) printed = await run(step.statements);
    expect({ line, printed }).toEqual({ line, printed: expected });
  }
}
