import LinuxSystem
import VMMControl

final class FilesProcess {
    init(_ control: ControlSocket) throws {}
    func run() throws {}
}
