// libvirt (Debian's libvirt-dev). Its callbacks have one type in the header and others in use; these take the true one.
#pragma once

#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

// virConnectDomainEventRegisterAny for VIR_DOMAIN_EVENT_ID_LIFECYCLE: a callback's number, or -1.
static inline int martlet_libvirt_on_lifecycle(
    virConnectPtr connection, virDomainPtr domain, virConnectDomainEventCallback callback, void *opaque,
    virFreeCallback release) {
    return virConnectDomainEventRegisterAny(
        connection, domain, VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(callback), opaque, release);
}
