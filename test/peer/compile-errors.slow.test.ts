/**
 * What the compiler says of a mistake: the name of the option, the topic or the part of the payload, and nothing of other overloads.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { projectDirectory, startCommand } from "../support/program.js";

const mistakes: readonly (readonly [call: string, says: RegExp])[] = [
  ['peer.handle("a", { concurency: 3 }, () => undefined)', /'concurency' does not exist .*'concurrency'/],
  ['peer.handle("a", { retry: { attemps: 3 } }, () => undefined)', /'attemps' does not exist .*'attempts'/],
  ['peer.handleBatch("a", { maxMessage: 3 }, () => undefined)', /'maxMessage' does not exist .*'maxMessages'/],
  ['peer.respond("a", { timeout: 3 }, () => undefined)', /'timeout' does not exist/],
  ['peer.messages("a", { timeoutMS: 3 })', /'timeoutMS' does not exist .*'timeoutMs'/],
  ['peer.send("a", "x", { mesageId: "1" })', /'mesageId' does not exist .*'messageId'/],
  ['peer.sendAll("a", "x", { dlivery: "at-most-once" })', /'dlivery' does not exist .*'delivery'/],
  ['peer.send("a", "x", { delivery: "exactly-once" })', /'"exactly-once"' is not assignable to type 'DeliveryName/],
  ['enqueue(client, "a", "x", { deliverat: new Date() })', /'deliverat' does not exist .*'deliverAt'/],
  ['schedule(client, "a", { cron: "* * * * *", to: "a", payloads: {} })', /'payloads' does not exist .*'payload'/],
  ['shop.send("order-place", { id: 17 })', /"order-place"' is not assignable to parameter of type '.*'order-placed'/],
  ['shop.send("order-placed", { id: "17" })', /'string' is not assignable to type 'number'/],
  ['peer.send("a", { id: 17n })', /'bigint' is not assignable to type '"JSON cannot carry this"'/],
  ['peer.handle("a", ({ json }) => json())', /'this' context of type 'void' is not assignable/],
  ["new Peer<{ a: { at: Date } }>({ name: 'a' })", /JSON cannot carry this/],
];

it("names what is wrong", { timeout: 120_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), "hawser-mistakes-"));
  try {
    const source = JSON.stringify(join(projectDirectory, "src/jobs-and-peers/peer/index.js"));
    const head = [
      `import { enqueue, Peer, schedule, type SqlClient } from ${source};`,
      "declare const client: SqlClient; declare const peer: Peer; declare const shop: Peer<{ 'order-placed': { id: number } }>;",
    ];
    writeFileSync(join(directory, "mistakes.ts"), [...head, ...mistakes.map(([call]) => `${call};`)].join("\n"));
    const compilerOptions = { typeRoots: [join(projectDirectory, "node_modules/@types")] };
    const config = { extends: join(projectDirectory, "tsconfig.json"), compilerOptions, include: ["mistakes.ts"] };
    writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config));
    const tsc = join(projectDirectory, "node_modules/typescript/bin/tsc");
    const { stdout } = await startCommand(process.execPath, [tsc, "--pretty", "false", "-p", directory]).ended;
    const said = stdout.split(/\n(?=\S)/).map((text) => /mistakes\.ts\((\d+),\d+\): error TS\d+: (.*)/s.exec(text));
    const saidOf = (line: number) => said.filter((match) => match?.[1] === String(line)).map((match) => match![2]!);
    for (const [index, [call, says]] of mistakes.entries()) {
      const [text, ...others] = saidOf(index + 1 + head.length);
      expect(others, call).toEqual([]);
      expect(text?.replaceAll(/\s+/g, " "), call).toMatch(says);
      expect(text, call).not.toMatch(/DescMessage'|overload/);
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
