import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { WarehouseService } from "../gen/acme/shop/v1/shop_pb.js";

const stock = new Map([
  ["rope", 7],
  ["buoy", 40],
]);

/** The handlers of the service: the same whichever way it is called. */
export function routes(router: ConnectRouter): void {
  router.service(WarehouseService, {
    checkStock({ sku }) {
      const count = stock.get(sku);
      if (count === undefined) throw new ConnectError(`there is no ${sku}`, Code.NotFound);
      return { count };
    },
  });
}
