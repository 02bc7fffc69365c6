/**
 * From the first byte of a client connection to the end of its authentication, or to its refusal. Pure: what was read in, what to do out.
 *
 *     packet awaited ──▶ SASL response awaited ──▶ proof awaited ──▶ done
 *        │      ▲
 *        └──────┴─ SSLRequest, GSSENCRequest: each once
 *
 * A user that does not exist goes the same way as one that does, and its proof is refused; that a database does not exist
 * is told only to clients that know the password.
 */
import type { GatewayConstants } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../errors/index.js";
import type { ErrorAnswer } from "./answer.js";
import {
  authenticationSasl,
  authenticationSaslContinue,
  authenticationSaslFinal,
  encryptionAccepted,
  encryptionRefused,
  negotiateProtocolVersion,
} from "./backend-messages.js";
import type { MessageReader } from "./message-reader.js";
import { mockVerifierOf, ScramExchange, type ScramStep, type ScramVerifier } from "./scram.js";

/** Which client may come in, and how. */
export interface LoginRules extends Pick<GatewayConstants, "maxStartupBytes"> {
  readonly user: string;
  readonly database: string;
  readonly verifier: ScramVerifier;
  /** Random bytes, the same for the life of `verifier`. */
  readonly mockSecret: Uint8Array;
  /** Makes printable ASCII without commas, never the same twice. */
  readonly serverNonce: () => string;
  /** TLS is spoken, and nothing without it. */
  readonly tls: boolean;
}

/** What to do next. */
export type LoginStep =
  /** Write these bytes, and read on. */
  | { readonly kind: "reply"; readonly bytes: Buffer }
  /** Write these bytes; TLS begins. */
  | { readonly kind: "secure"; readonly bytes: Buffer }
  /** The client has proved itself: write these bytes, then what begins a session. */
  | { readonly kind: "done"; readonly bytes: Buffer; readonly applicationName: string }
  | { readonly kind: "refuse"; readonly error: ErrorAnswer }
  /** Nothing is owed. */
  | { readonly kind: "close" };

type Startup = Extract<StartupPacket, { kind: "startup" }>;

/** The SQLSTATE where something between the two ends TLS: `sqlserver_rejected_establishment_of_sqlconnection`. */
export const otherChannelState = "08004";

const saslResponseType = "p".charCodeAt(0);

/** The login of one client connection. */
export class Login {
  #state: "packet" | "sasl-first" | "sasl-final" = "packet";
  #askedForTls = false;
  #askedForGss = false;
  /** DER: ours, once TLS has been established. */
  #certificate: Uint8Array | undefined;
  #user = "";
  #database = "";
  #applicationName = "";
  #exchange: ScramExchange | undefined;

  readonly #rules: LoginRules;

  constructor(rules: LoginRules) {
    this.#rules = rules;
  }

  /** TLS has been established. @param certificate DER: the one that the client was shown, by which it may bind the login */
  secured(certificate: Uint8Array): void {
    this.#certificate = certificate;
  }

  /** Reads the next of the client's messages. @returns undefined while it is not all there */
  next(reader: MessageReader): LoginStep | undefined {
    if (this.#state === "packet") return this.#nextPacket(reader);
    if (!reader.readHeader()) return undefined;
    const { type, bodyBytes } = reader;
    if (type !== saslResponseType) return violation(`a message of type ${type} came instead of the password's proof`);
    const fault = this.#faultOfLength(bodyBytes, 0);
    if (fault !== undefined) return fault;
    const body = reader.readBody();
    if (body === undefined) return undefined;
    return this.#state === "sasl-first" ? this.#saslFirst(body) : this.#saslFinal(body);
  }

  #nextPacket(reader: MessageReader): LoginStep | undefined {
    if (!reader.readStartupHeader()) return undefined;
    const fault = this.#faultOfLength(reader.bodyBytes, 4);
    if (fault !== undefined) return fault;
    const body = reader.readBody();
    if (body === undefined) return undefined;
    const packet = parseStartupPacket(body);
    switch (packet.kind) {
      case "ssl":
        return this.#answerTls(reader);
      case "gss":
        return this.#answerGss();
      case "cancel":
        return { kind: "close" };
      case "startup":
        return this.#start(packet);
      case "unsupported":
        return refuse(
          errorTable.not_supported.sqlstate,
          `version ${packet.version} of the Postgres protocol is not supported; use 3.0`,
        );
      case "malformed":
        return violation(`the startup packet is malformed: ${packet.reason}`);
    }
  }

  #faultOfLength(bodyBytes: number, least: number): LoginStep | undefined {
    const { maxStartupBytes } = this.#rules;
    if (bodyBytes >= least && bodyBytes <= maxStartupBytes) return undefined;
    return violation(`a message of ${bodyBytes} bytes came before authentication; ${least} to ${maxStartupBytes} fit`);
  }

  #answerTls(reader: MessageReader): LoginStep {
    if (this.#askedForTls) return violation("TLS was asked for twice");
    this.#askedForTls = true;
    if (!this.#rules.tls) return { kind: "reply", bytes: encryptionRefused };
    // They would be taken for bytes that came through TLS, and anybody between the two could have sent them.
    if (reader.bufferedBytes > 0) return violation("bytes came behind the request for TLS, before its answer");
    return { kind: "secure", bytes: encryptionAccepted };
  }

  #answerGss(): LoginStep {
    if (this.#askedForGss) return violation("GSSAPI encryption was asked for twice");
    this.#askedForGss = true;
    return { kind: "reply", bytes: encryptionRefused };
  }

  #start({ minorVersion, parameters, protocolOptions }: Startup): LoginStep {
    if (this.#rules.tls && this.#certificate === undefined) {
      return refuse("28000", "the gateway accepts only TLS; set sslmode=require or stricter in the connection string");
    }
    this.#user = parameters.get("user") ?? "";
    this.#database = parameters.get("database") ?? this.#user;
    this.#applicationName = parameters.get("application_name") ?? "";
    if (this.#user === "") return refuse("28000", "the startup message names no user");
    const { user, verifier, mockSecret, serverNonce } = this.#rules;
    const known = this.#user === user ? verifier : mockVerifierOf(mockSecret, this.#user, verifier.iterations);
    this.#exchange = new ScramExchange(known, serverNonce(), this.#certificate);
    this.#state = "sasl-first";
    const asksForMore = minorVersion > 0 || protocolOptions.length > 0;
    const sasl = authenticationSasl(this.#exchange.mechanisms);
    const bytes = asksForMore ? Buffer.concat([negotiateProtocolVersion(protocolOptions), sasl]) : sasl;
    return { kind: "reply", bytes };
  }

  #saslFirst(body: Uint8Array): LoginStep {
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
    const nameEnd = bytes.indexOf(0);
    if (nameEnd === -1 || bytes.length < nameEnd + 5) return violation("the SASL response is cut off");
    const exchange = this.#exchange!;
    const mechanism = bytes.toString("latin1", 0, nameEnd);
    if (!exchange.mechanisms.includes(mechanism)) {
      return violation(`the client chose another SASL mechanism than ${exchange.mechanisms.join(" or ")}`);
    }
    const at = nameEnd + 5;
    if (bytes.readInt32BE(nameEnd + 1) !== bytes.length - at) return violation("the SASL response has a wrong length");
    const step = exchange.first(bytes.toString("utf8", at), mechanism);
    if (step.kind !== "go-on") return this.#refused(step);
    this.#state = "sasl-final";
    return { kind: "reply", bytes: authenticationSaslContinue(step.reply) };
  }

  #saslFinal(body: Uint8Array): LoginStep {
    const step = this.#exchange!.final(Buffer.from(body.buffer, body.byteOffset, body.length).toString("utf8"));
    if (step.kind !== "go-on") return this.#refused(step);
    const database = this.#database;
    const applicationName = this.#applicationName;
    if (database !== this.#rules.database) {
      const hint = "Use the connection string that `hawser init` has stored, or run `hawser serve` for that database.";
      return refuse("3D000", `the gateway does not serve a database ${quoted(database)}`, hint);
    }
    return { kind: "done", bytes: authenticationSaslFinal(step.reply), applicationName };
  }

  #refused(step: Exclude<ScramStep, { kind: "go-on" }>): LoginStep {
    if (step.kind === "malformed") return violation(`the SCRAM message is malformed: ${step.reason}`);
    if (step.kind === "other-channel") {
      const hint = "Let nothing that ends TLS stand between Postgres and the gateway.";
      return refuse(otherChannelState, "the client was shown another certificate than the gateway's", hint);
    }
    const hint = "Use the connection string that `hawser init` has stored.";
    return refuse("28P01", `password authentication failed for user ${quoted(this.#user)}`, hint);
  }
}

function violation(message: string): LoginStep {
  return refuse(errorTable.gateway_protocol.sqlstate, message);
}

function refuse(sqlstate: string, message: string, hint?: string): LoginStep {
  return { kind: "refuse", error: { kind: "error", sqlstate, message, hint } };
}

/** What a stranger said, short enough to be repeated. */
function quoted(name: string): string {
  return JSON.stringify(name.length > 63 ? `${name.slice(0, 63)}…` : name);
}

/** The codes that stand where a startup message has its version. */
const cancelCode = 80877102;
const sslCode = 80877103;
const gssCode = 80877104;

/** The only major version of the protocol that is spoken. */
const majorVersion = 3;

/** A startup packet, understood. */
type StartupPacket =
  | { readonly kind: "ssl" }
  | { readonly kind: "gss" }
  | { readonly kind: "cancel" }
  | {
      readonly kind: "startup";
      readonly minorVersion: number;
      readonly parameters: ReadonlyMap<string, string>;
      /** The names that begin with `_pq_.`: options of the protocol, of which none is known. */
      readonly protocolOptions: readonly string[];
    }
  | { readonly kind: "unsupported"; readonly version: string }
  | { readonly kind: "malformed"; readonly reason: string };

/** Reads the body of a startup packet. Anything may be in it. */
function parseStartupPacket(body: Uint8Array): StartupPacket {
  if (body.length < 4) return malformed(`it has ${body.length} bytes after its length, and needs 4`);
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
  const code = bytes.readUInt32BE(0);
  // A cancel request carries a process and its key, and newer versions a longer key.
  if (code === cancelCode) return { kind: "cancel" };
  if (code === sslCode || code === gssCode) {
    if (body.length !== 4) return malformed("an encryption request has bytes behind it");
    return { kind: code === sslCode ? "ssl" : "gss" };
  }
  const major = code >>> 16;
  const minorVersion = code & 0xffff;
  if (major !== majorVersion) return { kind: "unsupported", version: `${major}.${minorVersion}` };
  const parameters = new Map<string, string>();
  const protocolOptions: string[] = [];
  let at = 4;
  for (;;) {
    const nameEnd = bytes.indexOf(0, at);
    if (nameEnd === -1) return malformed("its parameters have no end");
    if (nameEnd === at) break;
    const valueEnd = bytes.indexOf(0, nameEnd + 1);
    if (valueEnd === -1) return malformed("its last parameter has no value");
    const name = bytes.toString("utf8", at, nameEnd);
    if (name.startsWith("_pq_.")) protocolOptions.push(name);
    else parameters.set(name, bytes.toString("utf8", nameEnd + 1, valueEnd));
    at = valueEnd + 1;
  }
  if (at !== body.length - 1) return malformed("it has bytes behind its parameters");
  return { kind: "startup", minorVersion, parameters, protocolOptions };
}

function malformed(reason: string): StartupPacket {
  return { kind: "malformed", reason };
}
