/**
 * Certificate, key and authorities of a peer, kept in sync with their files.
 *
 * The files are reloaded at intervals and before each dial, by content: modification times are unreliable when files
 * are renamed or symbolic links switched, as Kubernetes and cert-manager do. New material is used only if it is
 * complete and consistent; until then the old one stays in use. Established connections are not affected. A file system
 * that does not answer blocks no caller for long, since the previous material can still be used.
 */
import { createHash } from "node:crypto";
import { type HawserError, invalidArgument } from "../errors/index.js";
import {
  type Clock,
  Repeated,
  readSmallFile,
  readSmallFileSync,
  systemClock,
  tlsFileMaxBytes,
} from "../runtime/index.js";
import {
  checkTlsOptions,
  loadTlsMaterial,
  type NamedPem,
  type PemSource,
  type TlsMaterial,
  type TlsOptions,
  type TlsPem,
} from "./tls-material.js";

/** Interval at which the files of certificates and keys are reloaded. */
export const tlsReloadMs = 5_000;
/** Maximum time that dialling and listening wait for these files before they use the previous content. */
export const tlsReloadWaitMs = 500;

/** Listener for changes of the certificates. */
export interface TlsCredentialsListener {
  /** New connections use new material from now on. */
  onReloaded?(material: TlsMaterial): void;
  /** The files cannot be read or used. Called once per state of the files. The old material stays in use. */
  onReloadFailed?(error: HawserError): void;
}

interface PemSourceState {
  readonly origin: string;
  readonly path: string | undefined;
  readonly pem: Buffer | undefined;
}

/** Loads the files of a peer's TLS options, and follows their changes. */
export class TlsCredentials {
  /** Certificate, key and, if there are any, authorities. */
  readonly #sources: readonly PemSourceState[];
  readonly #listeners = new Set<TlsCredentialsListener>();
  #material: TlsMaterial;
  /** Fingerprint of the files in use. */
  #inUse: string;
  /** Fingerprint or read error that was last reported as a failure. */
  #failed: string | undefined;
  #reading: Promise<void> | undefined;
  /** True if the pending read did not finish in time. */
  #late = false;

  readonly options: TlsOptions;
  readonly #clock: Clock;

  /**
   * Loads all files.
   *
   * @param clock clock for the timeout of later reloads
   * @throws HawserError `invalid_argument` for options of the wrong form, an unreadable file, and all errors of
   * {@link loadTlsMaterial}
   */
  constructor(options: TlsOptions, clock: Clock = systemClock) {
    this.options = options;
    this.#clock = clock;
    checkTlsOptions(options);
    const { cert, key, ca } = options;
    this.#sources = [
      placeOf("tls.cert", cert),
      placeOf("tls.key", key),
      ...(ca === undefined ? [] : [placeOf("tls.ca", ca)]),
    ];
    const pem = this.#pemOf(this.#sources.map(readPlaceSync));
    this.#material = loadTlsMaterial(pem, Date.now());
    this.#inUse = fingerprint(pem);
  }

  /** Material for new connections. */
  get current(): TlsMaterial {
    return this.#material;
  }

  /** Adds a listener. @returns a function that removes it */
  subscribe(listener: TlsCredentialsListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Reloads the files. Resolves when that is done, or after `tlsReloadWaitMs`: the read then continues, and calls
   * before its end do not wait for it. Never rejects: listeners are notified of failures.
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
        this.#reportLate(reading);
        resolve();
      }, tlsReloadWaitMs);
      void reading.then(() => {
        cancel();
        resolve();
      });
    });
  }

  /** Refreshes every `tlsReloadMs`. @returns a function that stops it */
  watch(clock: Clock): () => void {
    const refreshes = new Repeated(tlsReloadMs, () => this.refresh(), clock);
    refreshes.runIn(tlsReloadMs);
    return () => refreshes.stop();
  }

  async #readAgain(): Promise<void> {
    const sources = this.#sources;
    if (sources.every(({ path }) => path === undefined)) return;
    let state: string | undefined;
    try {
      // Sequentially, because each read that hangs occupies a thread of Node's small pool.
      const pems: NamedPem[] = [];
      for (const place of sources) pems.push(await readPlace(place));
      const pem = this.#pemOf(pems);
      state = fingerprint(pem);
      // Failed material is loaded again, because it may have become valid.
      const material = state === this.#inUse ? undefined : loadTlsMaterial(pem, Date.now());
      this.#failed = undefined;
      if (material === undefined) return;
      this.#material = material;
      this.#inUse = state;
      for (const listener of [...this.#listeners]) listener.onReloaded?.(this.#material);
    } catch (error) {
      const failure = error as HawserError;
      this.#reportFailed(failure, state ?? failure.message);
    }
  }

  #reportLate(reading: Promise<void>): void {
    if (this.#late || this.#reading !== reading) return;
    this.#late = true;
    const origins = this.#sources.filter(({ path }) => path !== undefined).map(({ origin }) => origin);
    const message = `reading ${origins.join(", ")} did not finish within ${tlsReloadWaitMs} ms; check the file system`;
    this.#reportFailed(invalidArgument(message), message);
  }

  #reportFailed(failure: HawserError, state: string): void {
    if (this.#failed === state) return;
    this.#failed = state;
    for (const listener of [...this.#listeners]) listener.onReloadFailed?.(failure);
  }

  #pemOf([cert, key, ca]: readonly NamedPem[]): TlsPem {
    return { cert: cert!, key: key!, ca, passphrase: this.options.passphrase };
  }
}

function placeOf(option: string, source: PemSource): PemSourceState {
  if (typeof source !== "string" || source.includes("-----BEGIN ")) {
    return { origin: option, path: undefined, pem: Buffer.from(source as string) };
  }
  return { origin: `${option} ${source}`, path: source, pem: undefined };
}

function readPlaceSync({ origin, path, pem }: PemSourceState): NamedPem {
  try {
    return { origin, pem: pem ?? readSmallFileSync(path!, tlsFileMaxBytes) };
  } catch (cause) {
    throw unreadable(origin, cause);
  }
}

async function readPlace({ origin, path, pem }: PemSourceState): Promise<NamedPem> {
  try {
    return { origin, pem: pem ?? (await readSmallFile(path!, tlsFileMaxBytes)) };
  } catch (cause) {
    throw unreadable(origin, cause);
  }
}

function unreadable(origin: string, cause: unknown): HawserError {
  return invalidArgument(`${origin} cannot be read: ${(cause as Error).message}`, cause);
}

/** Hash that identifies a state of the files. */
function fingerprint({ cert, key, ca }: TlsPem): string {
  const hash = createHash("sha256");
  for (const one of [cert, key, ca]) hash.update(`${one?.pem.length ?? -1}:`).update(one?.pem ?? "");
  return hash.digest("hex");
}
