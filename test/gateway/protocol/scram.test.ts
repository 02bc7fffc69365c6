import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  mockVerifierOf,
  ScramExchange,
  scramPlusMechanism,
  scramVerifierOf,
} from "../../../src/nats/gateway/protocol/scram.js";
import { clientFinal } from "./frontend-messages.js";
import { verifier } from "./test-session.js";

const serverNonce = "3rfcNHYJY1ZVvWVs7j";
const goOn = { kind: "go-on" };
const malformed = (reason: RegExp) => ({ kind: "malformed", reason: expect.stringMatching(reason) });

describe("SCRAM-SHA-256", () => {
  it("gives the messages of the example in RFC 7677, section 3", async () => {
    const pencil = await scramVerifierOf("pencil", 4096, Buffer.from("W22ZaJ0SNY7soEsUEjb6gQ==", "base64"));
    const exchange = new ScramExchange(pencil, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    expect(exchange.first("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")).toEqual({
      kind: "go-on",
      reply: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    });
    const final =
      "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    expect(exchange.final(final)).toEqual({
      kind: "go-on",
      reply: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    });
  });

  it.each(["sha224", "sha256", "sha384", "sha512"])(
    "is bound to the channel by the %s of the certificate",
    async (hash) => {
      const pencil = await scramVerifierOf("pencil", 4096);
      const shown = Buffer.from("the certificate that the client was shown");
      const first = "p=tls-server-end-point,,n=,r=abc";
      const outcome = (certificate: Buffer, bound: Buffer) => {
        const exchange = new ScramExchange(pencil, serverNonce, certificate);
        const { reply } = exchange.first(first, scramPlusMechanism) as { reply: string };
        return exchange.final(clientFinal(first, reply, "pencil", bound));
      };
      const digest = createHash(hash).update(shown).digest();
      expect(outcome(shown, digest)).toMatchObject(goOn);
      expect(outcome(Buffer.from("ours"), digest)).toEqual({ kind: "other-channel" });
      expect(outcome(shown, digest.subarray(1))).toEqual({ kind: "other-channel" });
      expect(outcome(shown, Buffer.alloc(0))).toEqual({ kind: "other-channel" });
      expect(outcome(shown, createHash("sha1").update(shown).digest())).toEqual({ kind: "other-channel" });
    },
  );

  it("refuses a binding that is not the one of the first message, whatever else is right", async () => {
    const pencil = await scramVerifierOf("pencil", 4096);
    const exchange = new ScramExchange(pencil, serverNonce, Buffer.from("ours"));
    const { reply } = exchange.first("n,,n=,r=abc") as { reply: string };
    const final = clientFinal("n,,n=,r=abc", reply, "pencil", Buffer.alloc(32));
    expect(exchange.final(final)).toMatchObject(malformed(/channel binding/));
  });

  it("takes a client that could bind the channel, since the server does not offer to", async () => {
    const pencil = await scramVerifierOf("pencil", 4096);
    const exchange = new ScramExchange(pencil, serverNonce);
    const first = "y,,n=,r=abc";
    const step = exchange.first(first);
    expect(step).toMatchObject(goOn);
    const final = clientFinal(first, (step as { reply: string }).reply, "pencil");
    expect(final).toContain("c=eSws,");
    expect(exchange.final(final)).toMatchObject(goOn);
  });

  it.each([
    ["asks to bind the channel", "p=tls-server-end-point,,n=,r=abc", /channel binding/],
    ["asks to be somebody else", "n,a=admin,n=,r=abc", /another authorization identity/],
    ["has an unknown flag", "z,,n=,r=abc", /neither n nor y/],
    ["has no header", "n=,r=abc", /GS2 header/],
    ["has no nonce", "n,,n=", /nonce/],
    ["has an empty nonce", "n,,n=,r=", /nonce/],
    ["has a nonce that is not printable", "n,,n=,r=a\nb", /nonce/],
    ["has an extension that is mandatory", "n,,m=x,n=,r=abc", /nonce/],
    ["is empty", "", /GS2 header/],
  ])("refuses a first message that %s", (_what, first, reason) => {
    expect(new ScramExchange(verifier, serverNonce).first(first)).toMatchObject(malformed(reason));
  });

  it.each<[string, (final: string) => string, object]>([
    ["has another binding", (final) => final.replace("c=biws", "c=eSws"), malformed(/channel binding/)],
    ["has another nonce", (final) => final.replace(",r=", ",r=x"), malformed(/nonce/)],
    ["has no proof", (final) => final.replace(/,p=.*/, ""), malformed(/proof/)],
    ["has a short proof", (final) => final.replace(/,p=..../, ",p="), malformed(/proof/)],
    ["has a proof that is no base64", (final) => final.replace(/,p=./, ",p=!"), malformed(/proof/)],
    ["has bytes behind its proof", (final) => `${final},x=y`, malformed(/proof/)],
    ["has an extension that the proof does not cover", (final) => final.replace(",p=", ",x=y,p="), { kind: "refused" }],
    [
      "is proved with another password",
      (final) => final.replace(/,p=.*/, `,p=${"A".repeat(43)}=`),
      { kind: "refused" },
    ],
  ])("refuses a final message that %s", async (_what, change, outcome) => {
    const pencil = await scramVerifierOf("pencil", 4096);
    const exchange = new ScramExchange(pencil, serverNonce);
    const first = "n,,n=,r=abc";
    const { reply } = exchange.first(first) as { reply: string };
    expect(exchange.final(change(clientFinal(first, reply, "pencil")))).toMatchObject(outcome);
  });

  it("shows a user that does not exist the same salt whenever it asks, and others another", () => {
    const secret = Buffer.alloc(32, 9);
    const salt = (user: string) => mockVerifierOf(secret, user, 4096).salt.toString("hex");
    expect(salt("a")).toBe(salt("a"));
    expect(salt("a")).not.toBe(salt("b"));
    expect(salt("a")).toHaveLength(verifier.salt.toString("hex").length);
  });

  it.each(["", "pässword", "tab\t", "nul\0"])("refuses the password %j, which SASLprep might change", async (bad) => {
    await expect(scramVerifierOf(bad, 4096)).rejects.toMatchObject({ code: "invalid_argument" });
  });
});
