BEGIN
  RETURN QUERY SELECT o.shop, o.reference, ARRAY[o.reference] FROM hawser.orders AS o;
END;
