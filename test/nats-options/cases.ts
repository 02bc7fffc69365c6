/** Sets of options and what both validators must say of them. */
export interface OptionCase {
  readonly name: string;
  readonly options: Readonly<Record<string, unknown>>;
  /** The option and SQLSTATE of the first violation; none if the options are valid. */
  readonly refused?: readonly [option: string, sqlstate: string];
}

const unknown = "HV00D";
const badValue = "HV024";
const conflict = "HV024";
const missing = "HV002";

/** Made up: it has the shape of a seed and belongs to no key. */
const seed = `SU${"A7".repeat(28)}`;
const user = { username: "me", password: "secret" };

function accepted(name: string, options: OptionCase["options"]): OptionCase {
  return { name, options };
}

function refused(name: string, options: OptionCase["options"], option: string, sqlstate: string): OptionCase {
  return { name, options, refused: [option, sqlstate] };
}

function refusedValue(option: string, value: unknown, name = JSON.stringify(value)): OptionCase {
  return refused(`${option} ${name}`, { [option]: value }, option, badValue);
}

const integers: OptionCase[] = [
  accepted("a port at each end as text", { port: "1", capacity: "1048576" }),
  accepted("a port of its own type", { port: 65535 }),
  accepted("white space around a number", { port: " 5" }),
  accepted("every white space of C around a number", { port: "\t\n\v\f\r 5 \t\n\v\f\r" }),
  accepted("a plus sign", { port: "+5" }),
  accepted("leading zeros", { port: "0000000000000000000000005" }),
  refusedValue("port", "0"),
  refusedValue("port", "-0"),
  refusedValue("port", "-1"),
  refusedValue("port", "65536"),
  refusedValue("port", 0),
  refusedValue("port", -0, "-0"),
  refusedValue("port", 65536),
  refusedValue("port", 4222.5),
  refusedValue("port", 1e300),
  refusedValue("port", 5e-324),
  refusedValue("port", ""),
  refusedValue("port", " "),
  refusedValue("port", "1e3"),
  refusedValue("port", "0x10"),
  refusedValue("port", "1_000"),
  refusedValue("port", "5.0"),
  refusedValue("port", "+ 5"),
  refusedValue("port", "+-5"),
  refusedValue("port", "5 6"),
  refusedValue("port", "5;DROP SCHEMA hawser"),
  refusedValue("port", "\u00a05"),
  refusedValue("port", "５"),
  refusedValue("port", "٣"),
  refusedValue("port", "NaN"),
  refusedValue("port", "Infinity"),
  refusedValue("port", "99999999999999999999"),
  refusedValue("port", "-99999999999999999999"),
  refusedValue("port", 1e20),
  refusedValue("port", "9".repeat(200_000), "of 200,000 digits"),
  refusedValue("port", true),
  refusedValue("port", null),
  refusedValue("port", [4222]),
  refusedValue("port", { value: 4222 }),
  refusedValue("capacity", "0"),
  accepted("a time at its end", { responder_timeout_ms: "86400000" }),
  refusedValue("responder_timeout_ms", "86400001"),
  accepted("replicas and subscriptions at their ends", { replicas: "5", max_role_subscriptions: "1000000" }),
  refusedValue("replicas", "6"),
  refusedValue("max_role_subscriptions", "0"),
];

const booleans: OptionCase[] = [
  ...["true", "TRUE", "t", "tr", "y", "Yes", "on", "1", " tRu ", "\tt\n"].map((value) =>
    accepted(`tls_insecure ${JSON.stringify(value)}`, { tls_insecure: value }),
  ),
  ...["false", "F", "fals", "n", "no", "of", "OFF", "0"].map((value) =>
    accepted(`tls_insecure ${JSON.stringify(value)} beside tls_ca_path`, { tls_insecure: value, tls_ca_path: "/ca" }),
  ),
  accepted("a boolean of its own type", { tls_insecure: true }),
  ...["", " ", "o", "2", "01", "truee", "yess", "ja", "tru e", "\u00a0t", "Ｔ", "ſ"].map((value) =>
    refusedValue("tls_insecure", value),
  ),
  refusedValue("tls_insecure", 1),
  refusedValue("tls_insecure", null),
];

const texts: OptionCase[] = [
  accepted("nothing at all", {}),
  ...["localhost", "10.30.50.1", "::1", "fe80::1%eth0", "nats_1.example.com.", "a".repeat(253)].map((host) =>
    accepted(`host ${host.slice(0, 20)}`, { host }),
  ),
  ...["a,b:4223,c", "localhost:1", "a:65535", "[::1]", "[::1]:4222,::2", "n1,10.0.0.1:4223,[fe80::1%eth0]:4224"].map(
    (host) => accepted(`host ${host}`, { host }),
  ),
  accepted("a host list of 2,047 characters", { host: Array(1024).fill("a").join(",") }),
  ...[
    "",
    " ",
    "a b",
    "nats://localhost",
    "a/b",
    "host\n",
    "ho\u00adst",
    "höst",
    "nats://a,b",
    "me@a",
    "a,nats://b",
  ].map((host) => refusedValue("host", host)),
  ...[",", "a,", ",a", "a,,b", "a, b", "a ,b", "a;b", "a:", ":1", "a:0", "a:04222", "a:65536", "a:99999", "a:-1"].map(
    (host) => refusedValue("host", host),
  ),
  ...["[a]", "[::1", "::1]", "[]", "[::1]:", "[::1]:0", "[::1],", "[[::1]]", "g:1:", "a:1,b:x"].map((host) =>
    refusedValue("host", host),
  ),
  refusedValue("host", "a".repeat(2049), "of 2,049 characters"),
  refusedValue("host", `${"a:1,".repeat(511)}b:`, "of many servers and a bad end"),
  refusedValue("host", ":".repeat(100_000), "of 100,000 colons"),
  refusedValue("host", "nats://me:secret@localhost"),
  refusedValue("host", 5),
  refusedValue("host", "𝄞".repeat(40), "of 40 characters and 80 UTF-16 units"),
  refusedValue("host", "𝄞".repeat(70), "of 70 characters"),
  refusedValue("host", "'; DROP SCHEMA hawser; --"),
  accepted("a domain", { domain: "hub" }),
  accepted("a domain beyond ASCII", { domain: "Кафе-𝄞" }),
  accepted("a domain of 255 characters beyond the basic plane", { domain: "𝄞".repeat(255) }),
  refusedValue("domain", "𝄞".repeat(256), "of 256 characters"),
  ...["", "a.b", "*", ">", "a b", "a\tb", "a\u00a0b", "a\u2003b", "\ufeffa", "a\u0001"].map((domain) =>
    refusedValue("domain", domain),
  ),
  accepted("a subject", { notify_subject: "pg.role.α.𝄞" }),
  ...["", ".", "a.", ".a", "a..b", "a.*", "a.>", "a b", "a.b\n", "a\u3000b"].map((subject) =>
    refusedValue("notify_subject", subject),
  ),
  ...["http://localhost:8008/patroni", "https://[::1]:8008", "http://h?x=%20"].map((url) =>
    accepted(`patroni_url ${url}`, { patroni_url: url }),
  ),
  ...["", "localhost:8008", "ftp://h", "HTTP://h", "http://", "http:// h", "http://me:pw@h", "http://h:123456"].map(
    (url) => refusedValue("patroni_url", url),
  ),
  accepted("a path of credentials", { creds_path: "/run/secrets/nats.creds" }),
  refusedValue("creds_path", "nats.creds"),
  accepted("a path beyond ASCII, with quotes", { tls_ca_path: '/run/sécrets/it\'s "ca"\\.pem' }),
  ...["", "ca.pem", "./ca.pem", "~/ca.pem", " /ca.pem", "C:\\ca.pem", "/ca\n.pem", "file:///ca.pem"].map((path) =>
    refusedValue("tls_ca_path", path),
  ),
  refusedValue("tls_ca_path", `/${"a".repeat(4095)}`, "of 4,096 characters"),
];

const credentials: OptionCase[] = [
  accepted("an empty user name", { username: "", password: "token" }),
  accepted("a user name of 1,024 characters", { ...user, username: "𝄞".repeat(1024) }),
  refused("a user name of 1,025 characters", { ...user, username: "𝄞".repeat(1025) }, "username", badValue),
  accepted("a password of quotes and backslashes", { ...user, password: "'\"\\$$; -- ´`\n" }),
  refused("an empty password", { ...user, password: "" }, "password", badValue),
  refused("a password that is a number", { ...user, password: 12345 }, "password", badValue),
  refused("a password of 16,385 characters", { ...user, password: "x".repeat(16_385) }, "password", badValue),
  accepted("both forms of the password", { ...user, password_path: "/run/secrets/pw" }),
  refused("a relative password_path", { username: "", password_path: "pw" }, "password_path", badValue),
  refused("a user name without password", { username: "me" }, "password", missing),
  refused("an empty user name without password", { username: "" }, "password", missing),
  refused("a password without user name", { password: "x" }, "username", missing),
  refused("a password_path without user name", { password_path: "/pw" }, "username", missing),
  accepted("a seed", { nkey_seed: seed }),
  refusedValue("nkey_seed", seed.slice(0, -1), "that is cut off"),
  refusedValue("nkey_seed", seed.toLowerCase(), "in lower case"),
  refusedValue("nkey_seed", `${seed}\n`, "with a line end"),
  refusedValue("nkey_seed", `U${seed.slice(1)}`, "that is a public key"),
  refusedValue("nkey_seed_path", seed, "that is the seed itself"),
  accepted("a token", { token: "s3cr3t ✓" }),
  refusedValue("token", ""),
  accepted("both forms of the token", { token: "t", token_path: "/run/secrets/token" }),
  refusedValue("token_path", "token"),
  accepted("all credentials at once", {
    ...user,
    password_path: "/a",
    nkey_seed_path: "/b",
    nkey_seed: seed,
    token: "c",
  }),
];

const combinations: OptionCase[] = [
  accepted("mutual TLS", { tls_ca_path: "/ca", tls_cert_path: "/cert", tls_key_path: "/key" }),
  ...["tls_cert_path", "tls_key_path"].map((name) =>
    refused(
      `a relative ${name}`,
      { tls_ca_path: "/ca", tls_cert_path: "/cert", tls_key_path: "/key", [name]: "pem" },
      name,
      badValue,
    ),
  ),
  accepted("a client certificate without a CA", { tls_insecure: "on", tls_cert_path: "/cert", tls_key_path: "/key" }),
  refused("tls_insecure beside tls_ca_path", { tls_insecure: "true", tls_ca_path: "/ca" }, "tls_insecure", conflict),
  refused("tls_insecure true, typed", { tls_insecure: true, tls_ca_path: "/ca" }, "tls_insecure", conflict),
  refused("a certificate without key", { tls_ca_path: "/ca", tls_cert_path: "/cert" }, "tls_key_path", missing),
  refused("a key without certificate", { tls_ca_path: "/ca", tls_key_path: "/key" }, "tls_cert_path", missing),
  refused("mutual TLS where TLS is off", { tls_cert_path: "/c", tls_key_path: "/k" }, "tls_ca_path", missing),
  refused(
    "mutual TLS where TLS is off by name",
    { tls_cert_path: "/c", tls_key_path: "/k", tls_insecure: "off" },
    "tls_ca_path",
    missing,
  ),
];

const order: OptionCase[] = [
  refused("an unknown name before all else", { zzz: 1, port: "x", tls_cert_path: "/c" }, "zzz", unknown),
  refused("a type before a combination", { tls_cert_path: "/c", port: "x" }, "port", badValue),
  refused("a combination before a range", { tls_cert_path: "/c", port: "0" }, "tls_key_path", missing),
  refused("the options in their order", { responder_timeout_ms: "x", port: "x", capacity: "x" }, "port", badValue),
  refused(
    "the second example of the documentation it replaces, with tls_ca_path and tls_insecure",
    {
      host: "localhost",
      port: "4222",
      capacity: "128",
      tls_ca_path: "/path/ca",
      tls_cert_path: "/path/cert",
      tls_key_path: "/path/key",
      tls_insecure: "true",
      domain: "hub",
      username: "myuser",
      password_path: "/run/secrets/nats_password",
      password: "hunter2",
      nkey_seed_path: "/run/secrets/nats_nkey_seed",
      nkey_seed: "SUABC...",
      token_path: "/run/secrets/nats_token",
      token: "my-token",
      notify_subject: "my.subject",
      patroni_url: "http://localhost:8008/patroni",
      responder_timeout_ms: "5000",
    },
    "tls_insecure",
    conflict,
  ),
];

const names: OptionCase[] = [
  ...[
    "hots",
    "hort",
    "Host",
    "tlsCaPath",
    "tls-ca-path",
    "pasword",
    "user",
    "",
    " host",
    "constructor",
    "__proto__",
    "toString",
    "'; DROP SCHEMA hawser; --",
    'quo"te',
    "naïve",
    "𝄞",
    "x".repeat(63),
    "x".repeat(64),
    "host".repeat(10_000),
  ].map((name) => refused(`an option called ${JSON.stringify(name).slice(0, 80)}`, named(name, "x"), name, unknown)),
  refused("two unknown options, in the order of their bytes", { "\u{1f600}": "", "\uffee": "" }, "\uffee", unknown),
];

/** An own property also where the name is `__proto__`. */
function named(name: string, value: unknown): Record<string, unknown> {
  return Object.fromEntries([[name, value]]);
}

export const cases: readonly OptionCase[] = [
  ...integers,
  ...booleans,
  ...texts,
  ...credentials,
  ...combinations,
  ...order,
  ...names,
];
