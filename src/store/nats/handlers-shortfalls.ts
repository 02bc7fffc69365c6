/**
 * What is lacking of that by which NATS reaches functions, and how it is had.
 */
import type { Shortfall } from "../shortfalls.js";
import type { NatsState } from "./inspect.js";
import { runSchema, subscriptionsView } from "./objects.js";

const nothingDelivered = "functions can be subscribed, and `hawser serve` cannot call them";
const otherLogin = "or name another login in hawser_executor with `hawser serve --executor-url`";

/** Looks at a database after the installation. */
export function handlersShortfalls({ handlers, role }: NatsState): Shortfall[] {
  const { hasRunSchema, hasSubscriptionsView, login } = handlers;
  return [
    ...(hasRunSchema
      ? []
      : [
          {
            what: `the schema ${runSchema} is missing, and "${role}" may not make it`,
            meaning: "no function can be subscribed, or answer requests",
            remedy: "as the owner of the database or a superuser: run `hawser init`",
          },
        ]),
    ...(hasSubscriptionsView
      ? []
      : [
          {
            what: `the view ${subscriptionsView} is missing, and "${role}" may not make it`,
            meaning: "what is subscribed cannot be looked at under the name that it has in the native extension",
            remedy: "as the owner of the database or a superuser: run `hawser init`",
          },
        ]),
    ...(login === null || (login.exists && login.joined)
      ? []
      : [
          {
            what: login.exists
              ? `"${login.name}", the login that calls functions for NATS, is not in hawser_executor, or hawser_bridge not in it, and "${role}" may not grant that`
              : `the login "${login.name}", which calls functions for NATS, is missing, and "${role}" may not make it`,
            meaning: nothingDelivered,
            remedy: `as a role that may make roles: run \`hawser init\`; ${otherLogin}`,
          },
        ]),
  ];
}

/** Looks at the role beforehand. The name of the login is not known where its table is not there yet. */
export function foreseeHandlersShortfalls({ handlers: { login, makesRoles }, role }: NatsState): Shortfall[] {
  if (makesRoles || login?.exists === true) return [];
  return [
    {
      what: `the login that calls functions for NATS is missing, and "${role}" may not make roles`,
      meaning: nothingDelivered,
      remedy: `as a role that may make roles: run \`hawser init\`; ${otherLogin}`,
    },
  ];
}
