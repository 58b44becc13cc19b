extension Pod {
    func detachStreams(_ pod: RunningPod) async throws {}
    func attachStreams(_ pod: RunningPod) async throws {}
}
