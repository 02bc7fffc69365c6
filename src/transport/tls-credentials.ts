/**
 * A peer's certificate, key and authorities, kept up to date with their files.
 *
 * Files are read again from time to time and before each dial, whole: modification times say little where files are
 * renamed or symbolic links turned, as Kubernetes and cert-manager do. What is read is used only if it is complete and
 * belongs together; until then the old stays in use. Connections keep what they were made with.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import type { TransportError } from "../errors/index.js";
import type { Clock } from "./clock.js";
import { loadTlsMaterial, type NamedPem, type TlsMaterial, type TlsPem } from "./tls-material.js";
import { checkTlsOptions, invalid, type PemSource, type TlsOptions } from "./tls-options.js";

/** Who hears of new certificates. */
export interface TlsCredentialsListener {
  /** New connections are made with new material from now on. */
  onReloaded?(material: TlsMaterial): void;
  /** The files changed and cannot be used; told once for each state they are in. The old material stays in use. */
  onReloadFailed?(error: TransportError): void;
}

interface PemPlace {
  readonly origin: string;
  readonly path: string | undefined;
  readonly pem: Buffer | undefined;
}

/** See above. */
export class TlsCredentials {
  private readonly places: { readonly cert: PemPlace; readonly key: PemPlace; readonly ca: PemPlace | undefined };
  private readonly listeners = new Set<TlsCredentialsListener>();
  private material: TlsMaterial;
  /** The state of the files that the material was made of. */
  private inUse: string;
  /** The state of the files, or why they could not be read, that was told last. */
  private failed: string | undefined;
  private refreshing: Promise<void> | undefined;

  /**
   * Reads everything.
   *
   * @throws TransportError `invalid_argument` for options of the wrong form, a file that cannot be read, and whatever
   * {@link loadTlsMaterial} refuses
   */
  constructor(readonly options: TlsOptions) {
    checkTlsOptions(options);
    const { cert, key, ca } = options;
    this.places = {
      cert: placeOf("tls.cert", cert),
      key: placeOf("tls.key", key),
      ca: ca === undefined ? undefined : placeOf("tls.ca", ca),
    };
    const read = (place: PemPlace): NamedPem => named(place, (path) => readFileSync(path));
    const pem = this.pemOf(read(this.places.cert), read(this.places.key), this.places.ca && read(this.places.ca));
    this.material = loadTlsMaterial(pem, Date.now());
    this.inUse = fingerprint(pem);
  }

  /** What to make new connections with. */
  get current(): TlsMaterial {
    return this.material;
  }

  /** Adds a listener. @returns what takes it away */
  subscribe(listener: TlsCredentialsListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Reads the files again. Never rejects: what cannot be used is told to the listeners. */
  refresh(): Promise<void> {
    this.refreshing ??= this.readAgain().finally(() => {
      this.refreshing = undefined;
    });
    return this.refreshing;
  }

  /** Refreshes every `tlsReloadMs`. @returns what ends it */
  watch(clock: Clock): () => void {
    let cancel = (): void => {};
    let ended = false;
    const again = (): void => {
      cancel = clock.setTimeout(() => {
        void this.refresh().then(() => {
          if (!ended) again();
        });
      }, protocolConstants.tlsReloadMs);
    };
    again();
    return () => {
      ended = true;
      cancel();
    };
  }

  private async readAgain(): Promise<void> {
    const { cert, key, ca } = this.places;
    const places = ca === undefined ? [cert, key] : [cert, key, ca];
    if (places.every(({ path }) => path === undefined)) return;
    let state: string | undefined;
    try {
      const [certPem, keyPem, caPem] = await Promise.all(places.map(readPlace));
      const pem = this.pemOf(certPem!, keyPem!, caPem);
      state = fingerprint(pem);
      // What failed before is tried again all the same: it may be valid only now.
      if (state === this.inUse) return;
      this.material = loadTlsMaterial(pem, Date.now());
      this.inUse = state;
      for (const listener of [...this.listeners]) listener.onReloaded?.(this.material);
    } catch (error) {
      const failure = error as TransportError;
      if (this.failed === (state ?? failure.message)) return;
      this.failed = state ?? failure.message;
      for (const listener of [...this.listeners]) listener.onReloadFailed?.(failure);
    }
  }

  private pemOf(cert: NamedPem, key: NamedPem, ca: NamedPem | undefined): TlsPem {
    return { cert, key, ca, passphrase: this.options.passphrase };
  }
}

function placeOf(option: string, source: PemSource): PemPlace {
  if (typeof source !== "string") return { origin: option, path: undefined, pem: Buffer.from(source) };
  if (source.includes("-----BEGIN ")) return { origin: option, path: undefined, pem: Buffer.from(source) };
  return { origin: `${option} ${source}`, path: source, pem: undefined };
}

function named({ origin, path, pem }: PemPlace, read: (path: string) => Buffer): NamedPem {
  try {
    return { origin, pem: pem ?? read(path!) };
  } catch (cause) {
    throw unreadable(origin, cause);
  }
}

async function readPlace({ origin, path, pem }: PemPlace): Promise<NamedPem> {
  try {
    return { origin, pem: pem ?? (await readFile(path!)) };
  } catch (cause) {
    throw unreadable(origin, cause);
  }
}

function unreadable(origin: string, cause: unknown): TransportError {
  return invalid(`${origin} cannot be read: ${(cause as Error).message}`, cause);
}

/** Tells one state of the files from another. */
function fingerprint({ cert, key, ca }: TlsPem): string {
  const hash = createHash("sha256");
  for (const one of [cert, key, ca]) hash.update(`${one?.pem.length ?? -1}:`).update(one?.pem ?? "");
  return hash.digest("hex");
}
