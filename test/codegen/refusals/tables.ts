import { type RefusalCase, table } from "./spec-text.js";

/** Tables and columns. */
export const tableCases: readonly RefusalCase[] = [
  {
    name: "an unknown column type",
    proto: table('string price = 1 [(hawser.spec.v1.column) = {type: "money"}];', 'primary_key: "price"'),
    says: 'message Foo.price: unknown column type "money"; use one of smallint, integer, bigint, bigserial, text, bytea, boolean, timestamptz, jsonb, xid8, pg_snapshot, int8multirange',
  },
  {
    name: "a column type that cannot hold the field",
    proto: table('bytes price = 1 [(hawser.spec.v1.column) = {type: "text"}];', 'primary_key: "price"'),
    says: "message Foo.price: column type text cannot hold bytes; use bytea",
  },
  {
    name: "a field type that no column has",
    proto: table("double price = 1;", 'primary_key: "price"'),
    says: "message Foo.price: a column cannot be double; use int32, uint32, int64, uint64, string, bytes, bool or google.protobuf.Timestamp, or a list of one of them",
  },
  {
    name: "a map as a column",
    proto: table("int32 id = 1; map<string, string> tags = 2;"),
    says: "message Foo.tags: a column cannot be map<string, string>; use int32, uint32, int64, uint64, string, bytes, bool or google.protobuf.Timestamp, or a list of one of them",
  },
  {
    name: "a oneof in a table",
    proto: table("int32 id = 1; oneof choice { string one = 2; string other = 3; }"),
    says: "message Foo.one: a column cannot be part of oneof choice; use optional fields and a check",
  },
  {
    name: "a view without a column",
    proto: 'message Foo { option (hawser.spec.v1.view) = {name: "foo" query_file: "a.sql"}; }',
    says: 'message Foo: view "foo" has no column; give the message a field',
  },
  {
    name: "a view whose query is not below the project",
    proto: 'message Foo { option (hawser.spec.v1.view) = {name: "foo" query_file: "../a.sql"}; int32 id = 1; }',
    says: 'message Foo: query_file "../a.sql" is not a .sql file below the root of the project',
  },
  {
    name: "a view of a table that its file does not have",
    proto: 'message Foo { option (hawser.spec.v1.view) = {name: "foo" table: "bar"}; int32 id = 1; }',
    says: 'message Foo: the view shows the table "bar", which its file does not have',
  },
  {
    name: "a view of a table that has roles of its own",
    proto: `${table("int32 id = 1;")} message Bar { option (hawser.spec.v1.view) = {name: "bar" table: "foo" select: "hawser_peer"}; int32 id = 1; }`,
    says: "message Bar: a view of a table has neither query_file nor select",
  },
  {
    name: "a view with a column that its table does not have",
    proto: `${table("int32 id = 1;")} message Bar { option (hawser.spec.v1.view) = {name: "bar" table: "foo"}; int32 other = 1; }`,
    says: 'message Bar.other: the table "foo" has no such column',
  },
  {
    name: "a view with a source that its table does not have",
    proto: `${table("int32 id = 1;")} message Bar { option (hawser.spec.v1.view) = {name: "bar" table: "foo"}; int32 id = 1 [(hawser.spec.v1.column) = {source: "other"}]; }`,
    says: 'message Bar.id: the table "foo" has no such column',
  },
  {
    name: "a source in a view of a query",
    proto:
      'message Foo { option (hawser.spec.v1.view) = {name: "foo" query_file: "a.sql"}; int32 id = 1 [(hawser.spec.v1.column) = {source: "other"}]; }',
    says: "message Foo.id: only a column of a view of a table has a source",
  },
  {
    name: "a source in a table",
    proto: table('int32 id = 1 [(hawser.spec.v1.column) = {source: "other"}];'),
    says: "message Foo.id: only a column of a view of a table has a source",
  },
  {
    name: "a view with a column of another type than its table",
    proto: `${table("int32 id = 1;")} message Bar { option (hawser.spec.v1.view) = {name: "bar" table: "foo"}; int64 id = 1; }`,
    says: 'message Bar.id: the column has the type integer in the table "foo"',
  },
  {
    name: "a view that is a table, too",
    proto:
      'message Foo { option (hawser.spec.v1.view) = {name: "foo"}; option (hawser.spec.v1.table) = {name: "foo"}; int32 id = 1; }',
    says: "message Foo: a message is either a table, a view, a group of settings or a group of metrics",
  },
  {
    name: "a table without a key",
    proto: table("int32 id = 1;", ""),
    says: 'message Foo: table "foo" has no primary_key',
  },
  {
    name: "segments by an unknown column",
    proto: table("int32 id = 1;", 'primary_key: "id" segments: {column: "part" count: 3}'),
    says: 'message Foo: segments names an unknown column "part"; the table has id',
  },
  {
    name: "one segment",
    proto: table("int32 id = 1;", 'primary_key: "id" segments: {column: "id" count: 1}'),
    says: "message Foo: segments: count is 1; a partitioned table needs 2 or more",
  },
  {
    name: "a key of an unknown column",
    proto: table("int32 id = 1;", 'primary_key: "number"'),
    says: 'message Foo: primary_key names an unknown column "number"; the table has id',
  },
  {
    name: "a key that names a column twice",
    proto: table("int32 id = 1;", 'primary_key: ["id", "id"]'),
    says: 'message Foo: primary_key names column "id" twice',
  },
  {
    name: "a key of a column that may be NULL",
    proto: table("optional int32 id = 1;"),
    says: 'message Foo: primary_key names column "id", which is optional; keys are never NULL',
  },
  {
    name: "a unique key of an unknown column",
    proto: table("int32 id = 1;", 'primary_key: "id" unique: {columns: "name"}'),
    says: 'message Foo: unique key names an unknown column "name"; the table has id',
  },
  {
    name: "an index of an unknown column",
    proto: table("int32 id = 1;", 'primary_key: "id" index: {name: "foo_name" columns: "name"}'),
    says: 'message Foo: index "foo_name" names an unknown column "name"; the table has id',
  },
  {
    name: "an index of nothing",
    proto: table("int32 id = 1;", 'primary_key: "id" index: {name: "foo_name"}'),
    says: 'message Foo: index "foo_name" names no column',
  },
  {
    name: "two indexes of one name",
    proto: table(
      "int32 id = 1;",
      'primary_key: "id" index: {name: "foo_id" columns: "id"} index: {name: "foo_id" columns: "(-id)"}',
    ),
    says: 'message Foo: two indexes are named "foo_id"; give each a different name',
  },
  {
    name: "two checks of one name",
    proto: table(
      "int32 id = 1;",
      'primary_key: "id" check: {name: "odd" expression: "id % 2 = 1"} check: {name: "odd" expression: "id > 1"}',
    ),
    says: 'message Foo: two checks are named "odd"; give each a different name',
  },
  {
    name: "a check without a condition",
    proto: table("int32 id = 1;", 'primary_key: "id" check: {name: "odd"}'),
    says: 'message Foo: check "odd" has no expression',
  },
  {
    name: "a table name that needs quotes",
    proto: 'message Foo { option (hawser.spec.v1.table) = {name: "My Foo" primary_key: "id"}; int32 id = 1; }',
    says: 'message Foo: table name "My Foo" is not a lower_snake_case name',
  },
  {
    name: "a column name that is a word of SQL",
    proto: table("int32 order = 1;", 'primary_key: "order"'),
    says: 'message Foo.order: column name "order" is a reserved word of SQL; choose another name',
  },
  {
    name: "a name that Postgres would cut off",
    proto: table(`int32 id = 1; string ${"long_".repeat(11)}name = 2 [(hawser.spec.v1.rules) = {max_bytes: 5}];`),
    says: `message Foo.${"long_".repeat(11)}name: constraint name "foo_${"long_".repeat(11)}name_bytes" has 69 bytes, Postgres takes 63; shorten it`,
  },
  {
    name: "a row with too few values",
    proto: table(
      'int32 id = 1; string name = 2; string upper = 3 [(hawser.spec.v1.column) = {generated: "upper(name)"}];',
      'primary_key: "id" row: {values: "1"}',
    ),
    says: "message Foo: a row has 1 values for 2 columns that are not generated",
  },
  {
    name: "a generated column with a default",
    proto: table('int32 id = 1; string name = 2 [(hawser.spec.v1.column) = {generated: "id::text" default: "1"}];'),
    says: "message Foo.name: a generated column cannot have a default",
  },
  {
    name: "a bigserial with a default",
    proto: table('int64 id = 1 [(hawser.spec.v1.column) = {type: "bigserial" default: "1"}];'),
    says: "message Foo.id: a bigserial column has its sequence as default and is never NULL",
  },
  {
    name: "an unknown role",
    proto: table("int32 id = 1;", 'primary_key: "id" grant: {role: "public" privileges: "SELECT"}'),
    says: 'message Foo: unknown role "public"; use one of hawser_owner, hawser_peer, hawser_nats, hawser_bridge, hawser_executor',
  },
  {
    name: "an unknown privilege",
    proto: table("int32 id = 1;", 'primary_key: "id" grant: {role: "hawser_peer" privileges: "READ"}'),
    says: 'message Foo: unknown privilege "READ" on tables; use some of SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER',
  },
  {
    name: "a privilege that columns do not have",
    proto: table("int32 id = 1;", 'primary_key: "id" grant: {role: "hawser_peer" privileges: "DELETE" columns: "id"}'),
    says: 'message Foo: unknown privilege "DELETE" on columns; use some of SELECT, INSERT, UPDATE, REFERENCES',
  },
  {
    name: "a grant of nothing",
    proto: table("int32 id = 1;", 'primary_key: "id" grant: {role: "hawser_peer"}'),
    says: "message Foo: the grant to hawser_peer names no privilege; use some of SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER",
  },
  {
    name: "a grant on an unknown column",
    proto: table("int32 id = 1;", 'primary_key: "id" grant: {role: "hawser_peer" privileges: "SELECT" columns: "x"}'),
    says: 'message Foo: grant to hawser_peer names an unknown column "x"; the table has id',
  },
  {
    name: "a notification of an unknown column",
    proto: table("int32 id = 1;", 'primary_key: "id" notify: {channel: "foo" columns: "x"}'),
    says: 'message Foo: notify names an unknown column "x"; the table has id',
  },
  {
    name: "a notification of text without a limit",
    proto: table("int32 id = 1; string name = 2;", 'primary_key: "id" notify: {channel: "foo" columns: "name"}'),
    says: 'message Foo: notify: column "name" has no greatest length; name only numbers, booleans, times and text with max_bytes',
  },
  {
    name: "a notification that may be too long for Postgres",
    proto: table(
      "int32 id = 1; string name = 2 [(hawser.spec.v1.rules) = {max_bytes: 1500}];",
      'primary_key: "id" notify: {channel: "foo" columns: ["id", "name"]}',
    ),
    says: "message Foo: notify: the payload can reach 9092 bytes, and NOTIFY takes less than 8000; name fewer columns",
  },
  {
    name: "a message that is a table and settings",
    proto:
      'message Foo { option (hawser.spec.v1.table) = {name: "foo" primary_key: "id"}; option (hawser.spec.v1.settings) = {title: "Foo"}; int32 id = 1; }',
    says: "message Foo: a message is either a table, a view, a group of settings or a group of metrics",
  },
  {
    name: "a setting among columns",
    proto: table('int32 id = 1 [(hawser.spec.v1.setting) = {default: "1"}];'),
    says: "message Foo.id: the option setting has no meaning here; it belongs in a message with the option settings",
  },
  {
    name: "a column outside a table",
    proto: 'message Foo { int32 id = 1 [(hawser.spec.v1.column) = {default: "1"}]; }',
    says: "message Foo.id: the option column has no meaning here; it belongs in the message of a table or of a function",
  },
];
