/** Connection strings of keywords and values, the other form of libpq: `host=db.internal dbname=app`. */
import { invalidArgument } from "../errors/index.js";
import { isPort, portRule, sessionAttributes, tlsModes } from "./connection-parameters.js";

/** libpq's keywords, up to Postgres 18. */
const known: ReadonlySet<string> = new Set(
  `application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation gssencmode gsslib
   host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts max_protocol_version
   min_protocol_version oauth_client_id oauth_client_secret oauth_issuer oauth_scope options passfile password port replication
   require_auth requirepeer scram_client_key scram_server_key service servicefile ssl_max_protocol_version ssl_min_protocol_version
   sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert sslsni
   target_session_attrs tcp_user_timeout user`.split(/\s+/),
);

/** Keywords whose meaning the driver does not have, and for which another would be a different server or login. */
const refused: ReadonlyMap<string, string> = new Map([
  ["service", "write its settings into the string"],
  ["servicefile", "write its settings into the string"],
  ["passfile", "set PGPASSFILE"],
  ["sslpassword", "give an sslkey without a password"],
]);

/** Rules for values that an error about a URL would show. */
const rules: ReadonlyMap<string, readonly [isValid: (value: string) => boolean, rule: string]> = new Map([
  ["port", [(value) => value.split(",").every((port) => port === "" || isPort(port)), portRule]],
  ["sslmode", [(value) => tlsModes.includes(value), `use one of ${tlsModes.join(", ")}`]],
  [
    "target_session_attrs",
    [(value) => sessionAttributes.some((one) => one === value), `use one of ${sessionAttributes.join(", ")}`],
  ],
]);

const form =
  "it is a URL such as postgres://user@host:5432/name, or keywords such as host=db.internal dbname=app user=app";

/** True for a string of keywords, by libpq's rule: it is no URL, and has an equals sign. */
function isKeywordString(text: string): boolean {
  return !/^[a-z]+:/i.test(text) && text.includes("=");
}

/**
 * Converts a string of keywords to a connection URI, and returns a URI as it is. Quotes and backslashes are libpq's.
 *
 * A password with spaces that lacks its quotes looks like further keywords, so errors name only keywords of libpq.
 *
 * @throws HawserError `invalid_argument`; the message names known keywords, and never contains a value or another keyword
 */
export function connectionUriOf(text: string): string {
  if (!isKeywordString(text)) return text;
  const given = keywordsOf(text);
  for (const [keyword, value] of given) {
    const remedy = refused.get(keyword);
    if (remedy !== undefined)
      throw invalidArgument(`databaseUrl has the keyword ${keyword}, which is not supported; ${remedy}`);
    const [isValid, rule] = rules.get(keyword) ?? [];
    if (value !== "" && isValid?.(value) === false)
      throw invalidArgument(`databaseUrl has a value of the keyword ${keyword} that is not valid; ${rule}`);
  }
  const taken = (keyword: string): string => {
    const value = given.get(keyword) ?? "";
    given.delete(keyword);
    return value;
  };
  const [user, password, name, address] = [taken("user"), taken("password"), taken("dbname"), taken("hostaddr")];
  if (address !== "" && (given.get("host") ?? "") !== "")
    throw invalidArgument("databaseUrl has the keywords host and hostaddr; give one of them");
  if (address !== "") given.set("host", address);
  const parameters = new URLSearchParams([...given].filter(([, value]) => value !== ""));
  const login = encodeURIComponent(user) + (password === "" ? "" : `:${encodeURIComponent(password)}`);
  const query = parameters.size === 0 ? "" : `?${parameters.toString().replaceAll("+", "%20")}`;
  return `postgres://${login === "" ? "" : `${login}@`}/${encodeURIComponent(name)}${query}`;
}

function keywordsOf(text: string): Map<string, string> {
  const keywords = new Map<string, string>();
  const next =
    /\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\[\s\S])*)'(?=\s|$)|((?:[^\s'\\]|\\[\s\S])(?:[^\s\\]|\\[\s\S])*|(?=\s|$)))\s*/y;
  let last = "";
  while (next.lastIndex < text.length) {
    const match = next.exec(text);
    const [, keyword = "", quoted, plain = ""] = match ?? [];
    if (!known.has(keyword)) {
      const where = last === "" ? "at its beginning" : `behind the keyword ${last}`;
      const what = match === null ? `cannot be read ${where}` : `has an unknown keyword ${where}`;
      throw invalidArgument(
        `databaseUrl ${what}; ${form}. A value with spaces is in single quotes, and ' and \\ are \\' and \\\\`,
      );
    }
    last = keyword;
    keywords.set(keyword, (quoted ?? plain).replaceAll(/\\([\s\S])/g, "$1"));
  }
  return keywords;
}
