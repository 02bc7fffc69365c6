/**
 * Login of a client connection, from its first byte to the end of its authentication. Pure: messages in, steps out.
 *
 *     packet awaited ──▶ SASL response awaited ──▶ proof awaited ──▶ done
 *        │      ▲
 *        └──────┴─ SSLRequest, GSSENCRequest: each once
 *
 * An unknown user takes the same path as a known one, and its proof is refused. Only clients that know the password are
 * told that a database does not exist.
 */
import { errorTable } from "../../../foundation/errors/index.js";
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

/** User, password and limits of logins. */
export interface LoginRules {
  /** Maximum size of a message before the login. */
  readonly maxStartupBytes: number;
  readonly user: string;
  readonly database: string;
  readonly verifier: ScramVerifier;
  /** Random bytes that stay the same while `verifier` does. */
  readonly mockSecret: Uint8Array;
  /** Returns unique printable ASCII without commas. */
  readonly serverNonce: () => string;
  /** True if TLS is required. */
  readonly tls: boolean;
}

/** Step that follows a message of the client. */
export type LoginStep =
  /** Write these bytes, and continue to read. */
  | { readonly kind: "reply"; readonly bytes: Buffer }
  /** Write these bytes, then start TLS. */
  | { readonly kind: "secure"; readonly bytes: Buffer }
  /** The client is authenticated: write these bytes, then the messages that start a session. */
  | { readonly kind: "done"; readonly bytes: Buffer }
  | { readonly kind: "refuse"; readonly error: ErrorAnswer }
  /** Close without an answer. */
  | { readonly kind: "close" };

type Startup = Extract<StartupPacket, { kind: "startup" }>;

/** SQLSTATE if a proxy between client and gateway ends TLS: `sqlserver_rejected_establishment_of_sqlconnection`. */
export const otherChannelState = "08004";

const saslResponseType = "p".charCodeAt(0);

/** Login of one client connection. */
export class Login {
  #state: "packet" | "sasl-first" | "sasl-final" = "packet";
  #askedForTls = false;
  #askedForGss = false;
  /** DER certificate of the gateway, once TLS is established. */
  #certificate: Uint8Array | undefined;
  #user = "";
  #database = "";
  #exchange: ScramExchange | undefined;

  readonly #rules: LoginRules;

  constructor(rules: LoginRules) {
    this.#rules = rules;
  }

  /**
   * Called when TLS is established.
   *
   * @param certificate DER certificate that the client was shown, for channel binding
   */
  secured(certificate: Uint8Array): void {
    this.#certificate = certificate;
  }

  /** Processes the next message of the client. @returns undefined until it has arrived completely */
  next(reader: MessageReader): LoginStep | undefined {
    if (this.#state === "packet") return this.#nextPacket(reader);
    if (!reader.readHeader()) return undefined;
    const { type, bodyBytes } = reader;
    if (type !== saslResponseType) return violation(`a message of type ${type} arrived instead of the password proof`);
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
    return violation(
      `a message of ${bodyBytes} bytes arrived before authentication; ${least} to ${maxStartupBytes} are allowed`,
    );
  }

  #answerTls(reader: MessageReader): LoginStep {
    if (this.#askedForTls) return violation("TLS was requested twice");
    this.#askedForTls = true;
    if (!this.#rules.tls) return { kind: "reply", bytes: encryptionRefused };
    // A third party could have sent that data, which would be mistaken for data received through TLS.
    if (reader.bufferedBytes > 0) return violation("data arrived after the TLS request and before its answer");
    return { kind: "secure", bytes: encryptionAccepted };
  }

  #answerGss(): LoginStep {
    if (this.#askedForGss) return violation("GSSAPI encryption was requested twice");
    this.#askedForGss = true;
    return { kind: "reply", bytes: encryptionRefused };
  }

  #start({ minorVersion, parameters, protocolOptions }: Startup): LoginStep {
    if (this.#rules.tls && this.#certificate === undefined) {
      return refuse("28000", "the gateway accepts only TLS; set sslmode=require or stricter in the connection string");
    }
    this.#user = parameters.get("user") ?? "";
    this.#database = parameters.get("database") ?? this.#user;
    if (this.#user === "") return refuse("28000", "the startup packet contains no user");
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
    if (nameEnd === -1 || bytes.length < nameEnd + 5) return violation("the SASL response is truncated");
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
    if (database !== this.#rules.database) {
      const hint = "Use the connection string that `hawser init` stored, or run `hawser serve` for that database.";
      return refuse("3D000", `the gateway does not serve a database ${quoted(database)}`, hint);
    }
    return { kind: "done", bytes: authenticationSaslFinal(step.reply) };
  }

  #refused(step: Exclude<ScramStep, { kind: "go-on" }>): LoginStep {
    if (step.kind === "malformed") return violation(`the SCRAM message is malformed: ${step.reason}`);
    if (step.kind === "other-channel") {
      const hint = "Remove proxies that end TLS between Postgres and the gateway.";
      return refuse(otherChannelState, "the client was shown another certificate than the gateway's", hint);
    }
    const hint = "Use the connection string that `hawser init` stored.";
    return refuse("28P01", `password authentication failed for user ${quoted(this.#user)}`, hint);
  }
}

function violation(message: string): LoginStep {
  return refuse(errorTable.gateway_protocol.sqlstate, message);
}

function refuse(sqlstate: string, message: string, hint?: string): LoginStep {
  return { kind: "refuse", error: { kind: "error", sqlstate, message, hint } };
}

/** Name that an unauthenticated client sent, quoted and shortened for an error message. */
function quoted(name: string): string {
  return JSON.stringify(name.length > 63 ? `${name.slice(0, 63)}…` : name);
}

/** Request codes that a startup packet can have instead of a version. */
const cancelCode = 80877102;
const sslCode = 80877103;
const gssCode = 80877104;

/** The only supported major version of the protocol. */
const majorVersion = 3;

/** A parsed startup packet. */
type StartupPacket =
  | { readonly kind: "ssl" }
  | { readonly kind: "gss" }
  | { readonly kind: "cancel" }
  | {
      readonly kind: "startup";
      readonly minorVersion: number;
      readonly parameters: ReadonlyMap<string, string>;
      /** Protocol options, whose names start with `_pq_.`. None is supported. */
      readonly protocolOptions: readonly string[];
    }
  | { readonly kind: "unsupported"; readonly version: string }
  | { readonly kind: "malformed"; readonly reason: string };

/** Parses the body of a startup packet, which may contain anything. */
function parseStartupPacket(body: Uint8Array): StartupPacket {
  if (body.length < 4) return malformed(`it has ${body.length} bytes after its length, and needs 4`);
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
  const code = bytes.readUInt32BE(0);
  // A cancel request has a process id and its key, whose length depends on the version.
  if (code === cancelCode) return { kind: "cancel" };
  if (code === sslCode || code === gssCode) {
    if (body.length !== 4) return malformed("an encryption request has extra bytes");
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
    if (nameEnd === -1) return malformed("its parameters are not terminated");
    if (nameEnd === at) break;
    const valueEnd = bytes.indexOf(0, nameEnd + 1);
    if (valueEnd === -1) return malformed("its last parameter has no value");
    const name = bytes.toString("utf8", at, nameEnd);
    if (name.startsWith("_pq_.")) protocolOptions.push(name);
    else parameters.set(name, bytes.toString("utf8", nameEnd + 1, valueEnd));
    at = valueEnd + 1;
  }
  if (at !== body.length - 1) return malformed("it has bytes after its parameters");
  return { kind: "startup", minorVersion, parameters, protocolOptions };
}

function malformed(reason: string): StartupPacket {
  return { kind: "malformed", reason };
}
