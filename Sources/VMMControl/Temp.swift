extension ControlClient {
    public func saveFiles(to file: Int32) throws(DeviceError) -> UInt64 { throw .failed("later") }
    public func restoreFiles(from file: Int32) throws(DeviceError) { throw .failed("later") }
}
