import { randomInt } from "node:crypto";
import { expect, it } from "vitest";
import type { Answer } from "../../../src/nats/gateway/protocol/index.js";
import { Random } from "../../simulator/random.js";
import { atDepth } from "../../support/depth.js";
import { errorFields, query } from "./frontend-messages.js";
import { callersInput, splitAtRandom, strangersInput } from "./hostile-inputs.js";
import { certificate, TestSession, testRules } from "./test-session.js";

const mib = 1024 * 1024;
const inputs = Number(process.env["HAWSER_FUZZ_INPUTS"] ?? atDepth(60_000));
const seed = Number(process.env["HAWSER_FUZZ_SEED"] ?? randomInt(2 ** 31));

const rules = { off: testRules(), on: testRules({ tls: true }) };

/** Result of one input. */
interface Outcome {
  readonly output: Buffer;
  readonly over: string | undefined;
  readonly calls: number;
}

/** Feeds chunks to a stranger's session; TLS is there at once. */
function strange(chunks: readonly Buffer[], tls: keyof typeof rules): Outcome {
  const test = new TestSession(rules[tls]);
  for (const chunk of chunks) {
    test.send(chunk);
    if (test.tlsBegun) test.session.secured(certificate);
  }
  if (test.isAdmitted) throw new Error("a stranger was let in");
  // At most one answer to each of the two encryption requests stands before messages.
  while (
    test.encryptionAnswers < 2 &&
    "SN".includes(test.output.toString("latin1").at(test.encryptionAnswers) ?? "-")
  ) {
    test.encryptionAnswers += 1;
  }
  return outcomeOf(test, false);
}

/** Feeds chunks to a session that has logged in. */
function familiar(chunks: readonly Buffer[], answering?: (query: Uint8Array) => Answer | Promise<Answer>): TestSession {
  const test = new TestSession(rules.off, answering).logIn();
  for (const chunk of chunks) test.send(chunk);
  return test;
}

/** Takes everything that was written apart: whole messages, errors with their fields, each call with one answer. */
function outcomeOf(test: TestSession, isFamiliar: boolean): Outcome {
  const { messages, types } = test;
  for (const message of messages) if (message.type === "E") errorFields(message);
  const form = isFamiliar ? /^(?:TDCZ|EZ|Z)*(?:EZA)?$/ : /^[SN]{0,2}(?:v?R)?R?E?$/;
  if (!form.test(types)) throw new Error(`these messages belong nowhere: ${types}`);
  const rows = types.split("D").length - 1;
  if (rows !== test.queries.length) throw new Error(`${test.queries.length} calls had ${rows} answers`);
  if (test.failures.length > 0) throw test.failures[0];
  return { output: test.output, over: test.over, calls: test.queries.length };
}

function mustBeSame(one: Outcome, other: Outcome): void {
  if (!one.output.equals(other.output) || one.over !== other.over || one.calls !== other.calls) {
    throw new Error(`another split gave another outcome: ${one.over} ${one.output} / ${other.over} ${other.output}`);
  }
}

/** Answers each call later; the outcome is the same. */
async function unhurried(chunks: readonly Buffer[]): Promise<Outcome> {
  const test = familiar(chunks, (query) => Promise.resolve({ kind: "row", value: Buffer.from(query).toString("hex") }));
  while (test.session.isAnswering) await Promise.resolve();
  return outcomeOf(test, true);
}

async function oneInput(index: number): Promise<number> {
  const random = new Random(seed + index);
  if (random.chance(0.6)) {
    const tls = random.pick(["off", "on"] as const);
    const input = strangersInput(random);
    const pieces = splitAtRandom(random, input);
    const outcome = strange(pieces, tls);
    // With TLS the borders of chunks count, since nothing may stand behind the request.
    if (tls === "off" && random.chance(0.3)) mustBeSame(outcome, strange([input], tls));
    return 0;
  }
  const input = callersInput(random);
  const outcome = outcomeOf(familiar(splitAtRandom(random, input)), true);
  if (random.chance(0.3)) mustBeSame(outcome, outcomeOf(familiar([input]), true));
  if (random.chance(0.1)) mustBeSame(outcome, await unhurried([input]));
  return outcome.calls;
}

function bytesInUse(): number {
  (globalThis as { gc?: () => void }).gc?.();
  const { rss } = process.memoryUsage();
  return rss;
}

it(
  `survives ${inputs} hostile inputs, seed ${seed}`,
  async () => {
    console.log(`fuzz: HAWSER_FUZZ_INPUTS=${inputs} HAWSER_FUZZ_SEED=${seed}`);
    let calls = 0;
    let before = 0;
    for (let index = 0; index < inputs; index++) {
      if (index === Math.floor(inputs / 4)) before = bytesInUse();
      calls += await oneInput(index).catch((cause: unknown) => {
        throw new Error(
          `input ${index} of seed ${seed}, alone: HAWSER_FUZZ_INPUTS=1 HAWSER_FUZZ_SEED=${seed + index}`,
          {
            cause,
          },
        );
      });
    }
    const grown = bytesInUse() - before;
    console.log(`fuzz: ${calls} calls were answered; ${(grown / mib).toFixed(1)} MiB grown after the first quarter`);
    // Many inputs get as far as a call: else this would test the first check only.
    expect(calls).toBeGreaterThan(inputs / 20);
    expect(grown).toBeLessThan(100 * mib);
    expect(familiar([query("x")]).types).toBe("TDCZ");
  },
  process.env["HAWSER_FUZZ_INPUTS"] === undefined ? undefined : 24 * 3600 * 1000,
);
