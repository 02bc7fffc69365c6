/**
 * Input of malicious or broken clients, made from valid input and noise.
 */
import type { Random } from "../../simulator/random.js";
import {
  cancelRequest,
  flush,
  gssRequest,
  header,
  int32,
  message,
  query,
  saslInitial,
  saslResponse,
  sslRequest,
  startup,
  sync,
  terminate,
} from "./frontend-messages.js";
import { database, user } from "./test-server.js";
import { clientFirst, goodStartup } from "./test-session.js";

const lengths = [0, 1, 3, 4, 5, 7, 8, 9, 100, 9999, 10_001, 0xffff, 0x10000, 0x3fffffff, 0x40000000, 0x7fffffff];
const types = "QXSHPBEDCFdcfp\0RZ\u0016G";
const wrongProof = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const scramTexts = [
  "n,,n=,r=abc",
  "y,,n=x,r=abc",
  "p=tls-unique,,n=,r=abc",
  "p=tls-server-end-point,,n=,r=abc",
  "n,,",
  "",
  ",,,,",
  "c=biws,r=abc,p=AAAA",
  clientFirst,
  wrongProof,
];
const good = Buffer.from("publish orders.new 1");

/** Input of a stranger: never with a valid proof. */
export function strangersInput(random: Random): Buffer {
  // Everything is right but the proof.
  if (random.chance(0.1)) {
    return mutated(
      random,
      Buffer.concat([goodStartup, saslInitial(clientFirst), saslResponse(wrongProof), query(good)]),
    );
  }
  const parts: Buffer[] = [];
  for (let count = random.between(1, 5); count > 0; count--) parts.push(strangersPart(random));
  return mutated(random, Buffer.concat(parts));
}

/** Input of an authenticated client. */
export function callersInput(random: Random): Buffer {
  const parts: Buffer[] = [];
  for (let count = random.between(1, 6); count > 0; count--) parts.push(callersPart(random));
  return mutated(random, Buffer.concat(parts));
}

/** The same bytes in pieces. */
export function splitAtRandom(random: Random, input: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  const longest = random.pick([1, 3, 10, 1000]);
  for (let at = 0; at < input.length; ) {
    const length = random.between(1, longest);
    pieces.push(input.subarray(at, at + length));
    at += length;
  }
  return pieces;
}

function strangersPart(random: Random): Buffer {
  switch (random.between(0, 9)) {
    case 0:
      return sslRequest;
    case 1:
      return gssRequest;
    case 2:
      return random.chance(0.3) ? cancelRequest : sslRequest;
    case 3:
      return startup({ user, database, application_name: noise(random, 10).toString("latin1").replaceAll("\0", "") });
    case 4:
      return startup({ user: random.pick([user, "postgres", "x".repeat(random.between(0, 3000))]), "_pq_.x": "" });
    case 5:
      return startup({ user, database }, (random.pick([1, 2, 3, 3, 3, 4]) << 16) | random.between(0, 3));
    case 6:
      return saslInitial(random.pick(scramTexts), random.pick(["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN", ""]));
    case 7:
      return saslResponse(random.pick(scramTexts));
    case 8:
      return Buffer.concat([int32(random.pick(lengths)), noise(random, 40)]);
    default:
      return random.chance(0.5) ? noise(random, 60) : callersPart(random);
  }
}

function callersPart(random: Random): Buffer {
  switch (random.between(0, 9)) {
    case 0:
    case 1:
      return query(good);
    case 2:
      return query(noise(random, 30).map((byte) => byte || 1));
    case 3:
      return query("x".repeat(random.between(1990, 2100)));
    case 4:
      return random.pick([sync, flush, sync, terminate]);
    case 5:
      return header(random.pick([...types]), random.pick(lengths) * random.pick([1, 1, 1, -1]));
    case 6:
      return message(random.pick([...types]), noise(random, 20));
    case 7:
      return message("Q", noise(random, 20));
    case 8:
      return query(Buffer.alloc(random.between(0, 5)));
    default:
      return noise(random, 30);
  }
}

function mutated(random: Random, input: Buffer): Buffer {
  return random.chance(0.4) ? input : withDamage(random, input, [0, 1, 0x7f, 0x80, 0xff, random.between(0, 255)]);
}

/** With bytes changed to some of those, cut off, cut out or doubled. */
export function withDamage(random: Random, input: Buffer, bytes: readonly number[]): Buffer {
  const at = random.between(0, input.length);
  switch (random.between(0, 3)) {
    case 0: {
      const damaged = Buffer.from(input);
      for (let count = random.between(1, 4); count > 0 && damaged.length > 0; count--) {
        damaged[random.between(0, damaged.length - 1)] = random.pick(bytes);
      }
      return damaged;
    }
    case 1:
      return input.subarray(0, at);
    case 2:
      return Buffer.concat([input.subarray(0, at), input.subarray(at + random.between(1, 8))]);
    default:
      return Buffer.concat([input.subarray(0, at), input.subarray(Math.max(0, at - random.between(1, 20)))]);
  }
}

export function noise(random: Random, atMost: number): Buffer {
  const bytes = Buffer.alloc(random.between(0, atMost));
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.between(0, 255);
  return bytes;
}
