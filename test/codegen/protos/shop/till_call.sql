BEGIN
  RETURN @dblink@.dblink('till', p_query) || @ShopConstants.number_prefix@;
END
