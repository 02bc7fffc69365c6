/**
 * A peer's certificate, key and authorities, kept up to date with their files.
 *
 * Files are read again from time to time and before each dial, whole: modification times say little where files are
 * renamed or symbolic links turned, as Kubernetes and cert-manager do. What is read is used only if it is complete and
 * belongs together; until then the old stays in use. Connections keep what they were made with. No caller waits long for a
 * file system that does not answer: what was read before is good enough to go on with.
 */
import { createHash } from "node:crypto";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import type { HawserError } from "../errors/index.js";
import { readSmallFile, readSmallFileSync } from "../files/index.js";
import { type Clock, systemClock } from "../runtime/index.js";
import {
  checkTlsOptions,
  invalid,
  loadTlsMaterial,
  type NamedPem,
  type PemSource,
  type TlsMaterial,
  type TlsOptions,
  type TlsPem,
} from "./tls-material.js";

const { tlsFileMaxBytes, tlsReloadMs, tlsReloadWaitMs } = protocolConstants;

/** Who hears of new certificates. */
export interface TlsCredentialsListener {
  /** New connections are made with new material from now on. */
  onReloaded?(material: TlsMaterial): void;
  /** The files cannot be used or read; told once for each state they are in. The old material stays in use. */
  onReloadFailed?(error: HawserError): void;
}

interface PemPlace {
  readonly origin: string;
  readonly path: string | undefined;
  readonly pem: Buffer | undefined;
}

/** Reads the files of a peer's TLS options, and follows them. */
export class TlsCredentials {
  readonly #places: { readonly cert: PemPlace; readonly key: PemPlace; readonly ca: PemPlace | undefined };
  readonly #listeners = new Set<TlsCredentialsListener>();
  #material: TlsMaterial;
  /** The state of the files that the material was made of. */
  #inUse: string;
  /** The state of the files, or why they could not be read, that was told last. */
  #failed: string | undefined;
  #reading: Promise<void> | undefined;
  /** The reading under way did not answer in time. */
  #late = false;

  readonly options: TlsOptions;
  readonly #clock: Clock;

  /**
   * Reads everything.
   *
   * @param clock by which the files are waited for when they are read again
   * @throws HawserError `invalid_argument` for options of the wrong form, a file that cannot be read, and whatever
   * {@link loadTlsMaterial} refuses
   */
  constructor(options: TlsOptions, clock: Clock = systemClock) {
    this.options = options;
    this.#clock = clock;
    checkTlsOptions(options);
    const { cert, key, ca } = options;
    this.#places = {
      cert: placeOf("tls.cert", cert),
      key: placeOf("tls.key", key),
      ca: ca === undefined ? undefined : placeOf("tls.ca", ca),
    };
    const read = (place: PemPlace): NamedPem => named(place, (path) => readSmallFileSync(path, tlsFileMaxBytes));
    const pem = this.#pemOf(read(this.#places.cert), read(this.#places.key), this.#places.ca && read(this.#places.ca));
    this.#material = loadTlsMaterial(pem, Date.now());
    this.#inUse = fingerprint(pem);
  }

  /** What to make new connections with. */
  get current(): TlsMaterial {
    return this.#material;
  }

  /** Adds a listener. @returns what takes it away */
  subscribe(listener: TlsCredentialsListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Reads the files again, and resolves when that is done, or after `tlsReloadWaitMs`: the reading goes on then, and
   * a call before its end does not wait for it. Never rejects: what cannot be used is told to the listeners.
   */
  async refresh(): Promise<void> {
    if (this.#late) return;
    this.#reading ??= this.#readAgain().finally(() => {
      this.#reading = undefined;
      this.#late = false;
    });
    const reading = this.#reading;
    await new Promise<void>((resolve) => {
      const cancel = this.#clock.setTimeout(() => {
        this.#tellLate(reading);
        resolve();
      }, tlsReloadWaitMs);
      void reading.then(() => {
        cancel();
        resolve();
      });
    });
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
      }, tlsReloadMs);
    };
    again();
    return () => {
      ended = true;
      cancel();
    };
  }

  async #readAgain(): Promise<void> {
    const { cert, key, ca } = this.#places;
    const places = ca === undefined ? [cert, key] : [cert, key, ca];
    if (places.every(({ path }) => path === undefined)) return;
    let state: string | undefined;
    try {
      // One after another: each that does not answer keeps one of the few threads that Node does such work with.
      const pems: NamedPem[] = [];
      for (const place of places) pems.push(await readPlace(place));
      const [certPem, keyPem, caPem] = pems;
      const pem = this.#pemOf(certPem!, keyPem!, caPem);
      state = fingerprint(pem);
      // What failed before is tried again all the same: it may be valid only now.
      const material = state === this.#inUse ? undefined : loadTlsMaterial(pem, Date.now());
      this.#failed = undefined;
      if (material === undefined) return;
      this.#material = material;
      this.#inUse = state;
      for (const listener of [...this.#listeners]) listener.onReloaded?.(this.#material);
    } catch (error) {
      const failure = error as HawserError;
      this.#tellFailed(failure, state ?? failure.message);
    }
  }

  #tellLate(reading: Promise<void>): void {
    if (this.#late || this.#reading !== reading) return;
    this.#late = true;
    const { cert, key, ca } = this.#places;
    const origins = [cert, key, ca].flatMap((place) => (place?.path === undefined ? [] : [place.origin]));
    const message = `reading ${origins.join(", ")} has no answer after ${tlsReloadWaitMs} ms; check their file system`;
    this.#tellFailed(invalid(message), message);
  }

  #tellFailed(failure: HawserError, state: string): void {
    if (this.#failed === state) return;
    this.#failed = state;
    for (const listener of [...this.#listeners]) listener.onReloadFailed?.(failure);
  }

  #pemOf(cert: NamedPem, key: NamedPem, ca: NamedPem | undefined): TlsPem {
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
    return { origin, pem: pem ?? (await readSmallFile(path!, tlsFileMaxBytes)) };
  } catch (cause) {
    throw unreadable(origin, cause);
  }
}

function unreadable(origin: string, cause: unknown): HawserError {
  return invalid(`${origin} cannot be read: ${(cause as Error).message}`, cause);
}

/** Tells one state of the files from another. */
function fingerprint({ cert, key, ca }: TlsPem): string {
  const hash = createHash("sha256");
  for (const one of [cert, key, ca]) hash.update(`${one?.pem.length ?? -1}:`).update(one?.pem ?? "");
  return hash.digest("hex");
}
