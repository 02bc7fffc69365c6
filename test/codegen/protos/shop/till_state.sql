BEGIN
  -- A cart is kept for @ShopConstants.cart_ms@ ms.
  RETURN QUERY SELECT true, hawser.gateway_call('GetState {}')::bigint;
END
