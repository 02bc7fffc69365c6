import { createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect as connectTcp } from "node:net";
import { createServer, type TLSSocket } from "node:tls";
import { describe, expect, it } from "vitest";
import { TlsCredentials } from "../../src/foundation/tls/index.js";
import { exporterOf, secureDial } from "../../src/jobs-and-peers/transport/tls-socket.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { bytesOfHex, hexOfBytes } from "../wire/vectors.js";

interface ExporterVector {
  readonly name: string;
  readonly hash: "sha256" | "sha384";
  readonly exporterSecretHex: string;
  readonly derivedSecretHex: string;
  readonly exporterHex: string;
}

const path = new URL("../vectors/exporter.json", import.meta.url);
const { vectors } = JSON.parse(readFileSync(path, "utf8")) as { readonly vectors: readonly ExporterVector[] };

/** HKDF-Expand-Label of RFC 8446, for no more bytes than the hash has. */
function expandLabel(hash: string, secret: Uint8Array, label: string, context: Uint8Array, length: number): Uint8Array {
  const name = Buffer.from(`tls13 ${label}`);
  const info = [Buffer.from([length >> 8, length & 255, name.length]), name, Buffer.from([context.length]), context];
  return createHmac(hash, secret)
    .update(Buffer.concat([...info, Buffer.from([1])]))
    .digest()
    .subarray(0, length);
}

function exporterFrom(hash: string, secret: Uint8Array): { readonly derived: Uint8Array; readonly value: Uint8Array } {
  const empty = createHash(hash).digest();
  const derived = expandLabel(hash, secret, "EXPORTER-Channel-Binding", empty, empty.length);
  return { derived, value: expandLabel(hash, derived, "exporter", empty, 32) };
}

describe("the exporter value", () => {
  it.each(vectors)("has a vector that holds: $name", ({ hash, exporterSecretHex, derivedSecretHex, exporterHex }) => {
    const { derived, value } = exporterFrom(hash, bytesOfHex(exporterSecretHex));
    expect(hexOfBytes(derived)).toBe(derivedSecretHex);
    expect(hexOfBytes(value)).toBe(exporterHex);
  });

  it.each([
    ["TLS_AES_128_GCM_SHA256", "sha256"],
    ["TLS_AES_256_GCM_SHA384", "sha384"],
  ])("is on both sides what the protocol says, with %s", async (ciphers, hash) => {
    const authority = new CertificateAuthority();
    const ours = authority.issue(["127.0.0.1"]);
    const keyLog: string[] = [];
    const server = createServer({ ...ours, ciphers });
    server.on("keylog", (line) => keyLog.push(line.toString()));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const accepted = once(server, "secureConnection") as Promise<[TLSSocket]>;
    const raw = connectTcp(port, "127.0.0.1");
    await once(raw, "connect");
    const dialled = secureDial(raw, "127.0.0.1", new TlsCredentials({ ...ours, ca: authority.certificate }));
    await once(dialled, "secureConnect");
    const [far] = await accepted;
    const secret = /^EXPORTER_SECRET \w+ (\w+)$/m.exec(keyLog.join(""))?.[1] ?? "";
    const { value } = exporterFrom(hash, bytesOfHex(secret));
    expect(hexOfBytes(exporterOf(dialled))).toBe(hexOfBytes(value));
    expect(hexOfBytes(exporterOf(far))).toBe(hexOfBytes(value));
    dialled.destroy();
    far.destroy();
    server.close();
  });
});
