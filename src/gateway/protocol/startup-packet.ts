/**
 * What a client may say before it says anything else.
 */

/** The codes that stand where a startup message has its version. */
const cancelCode = 80877102;
const sslCode = 80877103;
const gssCode = 80877104;

/** The only major version of the protocol that is spoken. */
const majorVersion = 3;

/** A startup packet, understood. */
export type StartupPacket =
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
export function parseStartupPacket(body: Uint8Array): StartupPacket {
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
