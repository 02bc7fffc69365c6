import { expect, it } from "vitest";
import { withoutPasswords } from "../../src/foundation/errors/index.js";

it.each([
  ["postgres://ann:secret@db/app", "postgres://***@db/app"],
  ["at postgresql://ann:a@b c:@d@db:5432/app?x=y now", "at postgresql://***@db:5432/app?x=y now"],
  ["postgres://a:1@x and postgres://b:2@y\npostgres://c:3@z", "postgres://***@y\npostgres://***@z"],
  ["postgres://ann@db/app", "postgres://ann@db/app"],
  ["nats://ann:secret@host:4222,tls://bob:secret@other", "nats://***@host:4222,tls://***@other"],
  [
    "postgres://db/app?user=ann&password=secret&sslpassword=secret2",
    "postgres://db/app?user=ann&password=***&sslpassword=***",
  ],
  ["host=db password=it's\\ secret user=ann", "host=db password=*** user=ann"],
  ["password = 'it\\'s secret' user=ann", "password = *** user=ann"],
  ["host=db password='secret and no end", "host=db password=***"],
  ['{"conninfo":"password=secret"}', '{"conninfo":"password=***"}'],
  ["mail to ann@example.com: see http://example.com/a:b@c", "mail to ann@example.com: see http://example.com/a:b@c"],
])("%j becomes %j", (text, expected) => expect(withoutPasswords(text)).toBe(expected));

it.each(["postgres://:", "a.", "a://", "password=", "password='", "password   ", "postgres://a@"])(
  "a million characters of %j are dealt with while the test runs",
  (part) => expect(withoutPasswords(part.repeat(1_000_000 / part.length))).toContain(part.slice(0, 5)),
);
