/**
 * Connection URIs of Postgres, with several hosts and the parameters of libpq. node-postgres is not needed to check one,
 * so that a program which only enqueues does not load it.
 */
import { parse } from "pg-connection-string";
import { HawserError } from "../errors/index.js";
import {
  isPort,
  portRule,
  type SessionAttributes,
  sessionAttributes,
  tlsModes,
  tlsParameters,
} from "./connection-parameters.js";
import { connectionUriOf } from "./keyword-string.js";

/**
 * Validates a connection URI, or a string of keywords. Files named in it are not read.
 *
 * @throws HawserError `invalid_argument` for one that cannot be read; the message never contains the URI
 */
export function checkConnectionUri(databaseUrl: string, env = process.env): void {
  const [address, query] = splitOnce(connectionUriOf(databaseUrl), "?");
  const parameters = new URLSearchParams(query);
  validateTlsMode(parameters.get("sslmode") ?? undefined);
  for (const name of tlsParameters) parameters.delete(name);
  attributesOf(parameters, env);
  urlsOf(address, parameters, env);
}

/** Connection URL per host; undefined if the environment contains everything. */
export function urlsOf(
  address: string | undefined,
  parameters: URLSearchParams,
  env: NodeJS.ProcessEnv,
): readonly (string | undefined)[] {
  const [, login = "", authority = "", path = ""] = /^[a-z]+:\/\/([^/?#]*@)?([^/?#]*)(.*)$/is.exec(address ?? "") ?? [];
  const named = parameters.get("host") ?? (authority === "" ? env["PGHOST"] : authority);
  if (named?.includes(",") !== true) {
    const port = parameters.get("port") ?? "";
    if (port !== "" && !isPort(port)) throw new HawserError("invalid_argument", portMessage(port));
    return [address === undefined ? undefined : checkedUrl(address, parameters)];
  }
  const inAuthority = parameters.get("host") === null && authority !== "";
  const ports = inAuthority ? [] : (parameters.get("port") ?? env["PGPORT"] ?? "").split(",");
  const hosts = named.split(",");
  if (ports.length > 1 && ports.length !== hosts.length) {
    throw new HawserError(
      "invalid_argument",
      `databaseUrl has ${hosts.length} hosts and ${ports.length} ports; give one port for all, or one for each host`,
    );
  }
  return hosts.map((one, place) => {
    const own = new URLSearchParams(parameters);
    const [, host = "", port] = (inAuthority ? /^(\[.*\]|[^:]*)(?::(.*))?$/.exec(one) : [one, one]) ?? [];
    const chosenPort = port ?? ports[place] ?? ports[0] ?? "";
    if (host === "") {
      throw new HawserError(
        "invalid_argument",
        `databaseUrl has an empty host at position ${place + 1} of its list; write it as host:port,host:port`,
      );
    }
    if (chosenPort !== "" && !isPort(chosenPort)) {
      throw new HawserError(
        "invalid_argument",
        `databaseUrl has the port "${chosenPort}" of the host at position ${place + 1}; ${portRule}`,
      );
    }
    own.set("host", host.replace(/^\[(.*)\]$/, "$1"));
    if (chosenPort !== "") own.set("port", chosenPort);
    return checkedUrl(address === undefined ? "postgres:///" : `postgres://${login}${path || "/"}`, own);
  });
}

export function attributesOf(parameters: URLSearchParams, env: NodeJS.ProcessEnv): SessionAttributes | undefined {
  const value = parameters.get("target_session_attrs") ?? env["PGTARGETSESSIONATTRS"];
  parameters.delete("target_session_attrs");
  if (!value) return undefined;
  const known = sessionAttributes.find((one) => one === value);
  if (known !== undefined) return known;
  throw new HawserError(
    "invalid_argument",
    `target_session_attrs "${value}" is unknown; use one of ${sessionAttributes.join(", ")}`,
  );
}

function checkedUrl(address: string, parameters: URLSearchParams): string {
  if (!/^(postgres|postgresql|socket):/.test(address)) {
    throw new HawserError(
      "invalid_argument",
      "databaseUrl is not a connection URI; it must begin with postgres:// or postgresql://, or have keywords such as host=db.internal dbname=app",
    );
  }
  const url = parameters.size === 0 ? address : `${address}?${parameters}`;
  try {
    // The driver parses it again when it connects. Parsing it here reports a mistake where it was made.
    parse(url);
  } catch {
    throw new HawserError(
      "invalid_argument",
      wrongPort(address) ??
        "databaseUrl cannot be read; check the port, and percent-encode special characters in user name and password",
    );
  }
  return url;
}

/**
 * Describes an invalid port of an address; undefined if the port is not the cause. The port is shown only after a user
 * name and without a further `@`, because otherwise it may be part of a password.
 */
function wrongPort(address: string): string | undefined {
  const [, port, rest = ""] = /^[a-z]+:\/\/[^/?#@]*@(?:\[[^\]]*\]|[^:/?#]*):([^/?#]*)(.*)$/is.exec(address) ?? [];
  if (port === undefined || rest.includes("@")) return undefined;
  if (/^\d+$/.test(port) && Number(port) < 65_536) return undefined;
  return portMessage(port);
}

function portMessage(port: string): string {
  return `databaseUrl has the port "${port}"; ${portRule}`;
}

export function validateTlsMode(mode: string | undefined): void {
  if (!mode || tlsModes.includes(mode)) return;
  throw new HawserError("invalid_argument", `sslmode "${mode}" is unknown; use one of ${tlsModes.join(", ")}`);
}

export function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}
