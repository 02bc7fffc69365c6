import { createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { DiallerHandshake, handshakeMac, ListenerHandshake } from "../../src/jobs-and-peers/transport/handshake.js";
import type { Hello } from "../../src/jobs-and-peers/wire/index.js";
import { bytesOfHex, handshakeVectors, hexOfBytes } from "../wire/vectors.js";
import { identity, secret, welcome } from "./pair.js";

const exporter = new Uint8Array(0);
const newSecret = new Uint8Array(32).fill(8);
const challengeNonce = new Uint8Array(32).fill(1);
const helloNonce = new Uint8Array(32).fill(2);
const accepted = { ...welcome, maxMessageBytes: 1000, capabilities: [] };
const unauthenticated = expect.objectContaining({ code: "unauthenticated" });

function bothSides(options: { dialler?: Uint8Array; exporterOfDialler?: Uint8Array } = {}) {
  return {
    listener: new ListenerHandshake({ listenerName: identity.listenerName, nonce: challengeNonce, exporter }),
    dialler: new DiallerHandshake({
      identity,
      secret: options.dialler ?? secret,
      nonce: helloNonce,
      exporter: options.exporterOfDialler ?? exporter,
    }),
  };
}

describe("the vectors of the handshake's MACs", () => {
  it.each(handshakeVectors)("$name", (vector) => {
    const key = bytesOfHex(vector.secretHex);
    const transcript = {
      ...vector,
      epoch: Number(vector.epoch),
      challengeNonce: bytesOfHex(vector.challengeNonceHex),
      helloNonce: bytesOfHex(vector.helloNonceHex),
      exporter: bytesOfHex(vector.exporterHex),
    };
    expect(hexOfBytes(handshakeMac(key, "hello", transcript))).toBe(vector.helloMacHex);
    expect(hexOfBytes(handshakeMac(key, "welcome", transcript))).toBe(vector.welcomeMacHex);
    const ofInput = (hex: string): string => createHmac("sha256", key).update(bytesOfHex(hex)).digest("hex");
    expect(ofInput(vector.helloMacInputHex)).toBe(vector.helloMacHex);
    expect(ofInput(vector.welcomeMacInputHex)).toBe(vector.welcomeMacHex);
  });
});

describe("the handshake", () => {
  it("succeeds on both sides if they know the secret", () => {
    const { listener, dialler } = bothSides();
    const hello = dialler.answer(listener.challenge());
    const verified = listener.verify(hello, [secret]);
    expect(verified.transcript).toMatchObject(identity);
    dialler.accept(listener.welcome(verified, accepted));
  });

  it.each([0, 1])("accepts either of two secrets and answers with the one of the dialler (%i)", (used) => {
    const secrets = [newSecret, secret];
    const { listener, dialler } = bothSides({ dialler: secrets[used]! });
    const verified = listener.verify(dialler.answer(listener.challenge()), secrets);
    expect(verified.secret).toBe(secrets[used]);
    dialler.accept(listener.welcome(verified, accepted));
  });

  it.each([
    ["another secret", [newSecret]],
    ["no secret", []],
    ["an empty secret", [new Uint8Array(0)]],
  ])("does not convince a listener with %s", (_, secrets) => {
    const { listener, dialler } = bothSides();
    const hello = dialler.answer(listener.challenge());
    expect(() => listener.verify(hello, secrets)).toThrow(unauthenticated);
  });

  it("fails with a MAC under an empty key", () => {
    const { listener, dialler } = bothSides({ dialler: new Uint8Array(0) });
    const hello = dialler.answer(listener.challenge());
    expect(() => listener.verify(hello, [new Uint8Array(0)])).toThrow(unauthenticated);
  });

  it.each<[string, Partial<Hello>]>([
    ["the sender's name", { senderName: "billing-2" }],
    ["the source topic", { sourceTopic: "billin" }],
    ["the listener's name", { listenerName: "orders-2" }],
    ["the channel id", { channelId: 13 }],
    ["the epoch", { epoch: identity.epoch + 1 }],
    ["the version", { version: 2 }],
    ["the nonce", { nonce: challengeNonce }],
    ["the MAC", { mac: new Uint8Array(32) }],
    ["the MAC's length", { mac: new Uint8Array(0) }],
    ["the border between two names", { senderName: "billing-1b", sourceTopic: "illing" }],
  ])("notices that %s was changed on the way", (_, change) => {
    const { listener, dialler } = bothSides();
    const hello = { ...dialler.answer(listener.challenge()), ...change };
    expect(() => listener.verify(hello, [secret])).toThrow(unauthenticated);
  });

  it("detects a Hello from another connection, with or without TLS", () => {
    const { dialler } = bothSides();
    const hello = dialler.answer({ ...bothSides().listener.challenge(), nonce: helloNonce });
    expect(() => bothSides().listener.verify(hello, [secret])).toThrow(unauthenticated);
    const relayed = bothSides({ exporterOfDialler: new Uint8Array(32) });
    const other = relayed.dialler.answer(relayed.listener.challenge());
    expect(() => relayed.listener.verify(other, [secret])).toThrow(unauthenticated);
  });

  it("rejects the dialler's own MAC as the listener's", () => {
    const { listener, dialler } = bothSides();
    const hello = dialler.answer(listener.challenge());
    expect(() => dialler.accept({ ...accepted, mac: hello.mac })).toThrow(unauthenticated);
  });

  it("rejects a Welcome of another handshake", () => {
    const { listener, dialler } = bothSides();
    dialler.answer(listener.challenge());
    const other = bothSides();
    const verified = other.listener.verify(
      new DiallerHandshake({ identity, secret, nonce: challengeNonce, exporter }).answer(other.listener.challenge()),
      [secret],
    );
    expect(() => dialler.accept(other.listener.welcome(verified, accepted))).toThrow(unauthenticated);
  });

  it("refuses an authenticated Hello for another listener", () => {
    const { dialler, listener } = bothSides();
    const other = new ListenerHandshake({ listenerName: "orders-2", nonce: challengeNonce, exporter });
    const hello = dialler.answer(listener.challenge());
    expect(() => other.verify(hello, [secret])).toThrow(expect.objectContaining({ code: "wrong_peer" }));
    expect(() => other.verify(hello, [newSecret])).toThrow(unauthenticated);
  });

  it("refuses unsupported versions", () => {
    const unsupported = expect.objectContaining({ code: "unsupported_version" });
    const { listener, dialler } = bothSides();
    const challenge = listener.challenge();
    expect(() => dialler.answer({ ...challenge, minVersion: 2, maxVersion: 3 })).toThrow(unsupported);
    expect(() => dialler.answer({ ...challenge, minVersion: 1, maxVersion: 3 })).not.toThrow();
    const transcript = { ...identity, challengeNonce, helloNonce, version: 2, exporter };
    const mac = handshakeMac(secret, "hello", transcript);
    const hello = { ...identity, version: 2, nonce: helloNonce, capabilities: [], mac };
    expect(() => listener.verify(hello, [secret])).toThrow(unsupported);
  });

  it("fails out of sequence", () => {
    const violation = expect.objectContaining({ code: "protocol_violation" });
    const { listener, dialler } = bothSides();
    expect(() => dialler.accept({ ...accepted, mac: new Uint8Array(32) })).toThrow(violation);
    dialler.answer(listener.challenge());
    expect(() => dialler.answer(listener.challenge())).toThrow(violation);
  });
});
