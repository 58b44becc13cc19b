/// The version of the runtime specification that Martlet speaks.
public let specVersion = "1.2.0"
